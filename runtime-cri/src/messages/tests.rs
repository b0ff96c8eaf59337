use bytes::Bytes;
use prost::Message;

use super::*;

/// Fields are where the protocol has them: bytes that were written by hand.
#[test]
fn fields_have_their_numbers() {
    let request = StopContainerRequest {
        container_id: "ab".to_owned(),
        timeout: 300,
    };
    assert_eq!(
        request.encode_to_vec(),
        [0x0a, 2, b'a', b'b', 0x10, 0xac, 0x02]
    );
    let status = ContainerStatus {
        id: "c".to_owned(),
        state: ContainerState::Exited.into(),
        exit_code: -1,
        image_id: "i".to_owned(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        ..ContainerStatus::default()
    };
    let wire = [
        &[0x0a, 1, b'c', 0x18, 2][..],
        // A negative int32 takes ten bytes.
        &[
            0x38, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ],
        &[0x62, 6, 0x0a, 1, b'k', 0x12, 1, b'v'],
        &[0x8a, 0x01, 1, b'i'],
    ]
    .concat();
    assert_eq!(status.encode_to_vec(), wire);
    assert_eq!(ContainerStatus::decode(&wire[..]).unwrap(), status);
}

#[test]
fn what_is_not_known_is_skipped() {
    // Field 90 is not of this version.
    let wire = [&[0xd2, 0x05, 1, b'x'][..], &[0x0a, 1, b'c']].concat();
    assert_eq!(
        CreateContainerResponse::decode(&wire[..])
            .unwrap()
            .container_id,
        "c"
    );
}

#[test]
fn secrets_are_not_shown() {
    let auth = AuthConfig {
        username: "me".to_owned(),
        password: "hush".to_owned(),
        auth: "aHVzaA".to_owned(),
        identity_token: "hush".to_owned(),
        registry_token: "hush".to_owned(),
        ..AuthConfig::default()
    };
    let variable = KeyValue {
        key: "TOKEN".to_owned(),
        value: Bytes::from_static(b"hush"),
    };
    let shown = format!("{auth:?} {variable:?}");
    assert!(shown.contains("me") && shown.contains("TOKEN"), "{shown}");
    assert!(
        !shown.contains("hush") && !shown.contains("aHVz"),
        "{shown}"
    );
}

#[test]
fn calls_have_their_paths() {
    assert_eq!(
        <PodSandboxStatusRequest as Call>::PATH,
        "/runtime.v1.RuntimeService/PodSandboxStatus"
    );
    assert_eq!(
        <PullImageRequest as Call>::PATH,
        "/runtime.v1.ImageService/PullImage"
    );
    assert_eq!(
        <GetEventsRequest as Call>::PATH,
        "/runtime.v1.RuntimeService/GetContainerEvents"
    );
}
