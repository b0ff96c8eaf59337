//! Known answers: of the algorithms' own specifications, and whole values that another implementation made (Python's `cryptography`, and for the
//! box XSalsa20 written by its definition, which meets NaCl's own vector below).

use proptest::prelude::*;

use crate::encryption::cipher::Cipher;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn counted(from: u8, length: u8) -> Vec<u8> {
    (0..length).map(|n| from + n).collect()
}

/// What is sealed with a nonce that is known.
#[track_caller]
fn known(cipher: &Cipher, nonce: &[u8], value: &[u8], authenticated: &[u8], sealed: &str) {
    let mut out = b"before".to_vec();
    cipher
        .seal_with(nonce, value, authenticated, &mut out)
        .unwrap();
    let wanted = [b"before".as_slice(), nonce, &hex(sealed)].concat();
    assert_eq!(out, wanted);
    assert_eq!(
        cipher.open(&wanted[b"before".len()..], authenticated),
        Ok(value.to_vec())
    );
}

#[test]
fn aes_gcm_gives_the_answers_of_its_specification() {
    // The GCM specification (McGrew and Viega), test cases 2, 4, 10 and 16, and 13.
    let (key, nonce) = (
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
    );
    let value = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let authenticated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let cipher = |key: &str| Cipher::gcm(&hex(key)).unwrap();
    known(
        &cipher("00000000000000000000000000000000"),
        &[0; 12],
        &[0; 16],
        b"",
        "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf",
    );
    known(
        &cipher(key),
        &hex(nonce),
        &value,
        &authenticated,
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
    );
    known(
        &cipher("feffe9928665731c6d6a8f9467308308feffe9928665731c"),
        &hex(nonce),
        &value,
        &authenticated,
        "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda27102519498e80f1478f37ba55bd6d27618c",
    );
    known(
        &cipher("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
        &hex(nonce),
        &value,
        &authenticated,
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
    known(
        &cipher("0000000000000000000000000000000000000000000000000000000000000000"),
        &[0; 12],
        b"",
        b"",
        "530f8afbc74536b9a963b4f1c4cb738b",
    );
}

#[test]
fn aes_cbc_gives_the_answers_of_its_specification() {
    // NIST SP 800-38A, F.2.1, F.2.3 and F.2.5: their first two blocks; what follows is a block of padding.
    let iv = counted(0, 16);
    let value = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    for (key, blocks) in [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
        ),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        ),
    ] {
        let mut out = Vec::new();
        let cipher = Cipher::cbc(&hex(key)).unwrap();
        cipher.seal_with(&iv, &value, b"", &mut out).unwrap();
        assert_eq!(out[16..48], hex(blocks));
        assert_eq!(out.len(), 64, "a whole block of padding");
        assert_eq!(cipher.open(&out, b"").unwrap(), value);
    }
}

#[test]
fn a_box_is_what_nacl_makes() {
    // NaCl's own tests/secretbox.
    known(
        &Cipher::secretbox(&hex(
            "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389",
        ))
        .unwrap(),
        &hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37"),
        &hex(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        ),
        b"not looked at",
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5",
    );
}

#[test]
fn values_are_what_others_make() {
    let value = br#"{"kind":"Secret","data":{"password":"c3dvcmRmaXNo"}}"#;
    let path = b"/registry/core/secrets/default/db";
    for (length, gcm, cbc) in [
        (
            16,
            "420b02a3032fdb8aaeea267c8c4209da605fdd0a69b3b7a4c062b8400faf74667fbe7a50b9c20129e1e1f7806e5910c7a4c4b3024e36657a8ea538273e26046ac4959218",
            "5c55393263176bd7e45dcc7e96e30c54980fe4eeab27b8cd4113c1b62e3306ad71644ebeaf0d329015017b88ead544c0adeee1022f0c8fed4cc039f4d5a8391f",
        ),
        (
            24,
            "5d2e3713ff337a8fcf40e0df2f566748a4d962fbb05a5da2b46d91cebf4f510bed89c7ada337f667c466dd0bd15caaec091d962786574236487831bcbc6b7998b07d6059",
            "17cd05eba96d20250082026fc69796e5cf8ced3de83bb6df0b0dbec0816a44609f1eb4b44035afe64b030ca8a0ae033663cfe8e37d67668606cc4c9b7b18656f",
        ),
        (
            32,
            "999bc54a4858a539ef977255e901677955e4363dc3542d190c653e84e4609ab4ea6cd196fcdaec305797663dfc6c8794a453d74c9711e53a204126750cebd7a04e2c0bf9",
            "369eb857ef0b348774b33933e286214b2c04ac4c7ee78652747b0810f2ee7244aba7ee7a3af790aa1e49ea6aaf1f65c78021204dfbb88b57b99382fda43fe8f1",
        ),
    ] {
        let key = counted(0, length);
        known(
            &Cipher::gcm(&key).unwrap(),
            &counted(0x40, 12),
            value,
            path,
            gcm,
        );
        known(
            &Cipher::cbc(&key).unwrap(),
            &counted(0x60, 16),
            value,
            path,
            cbc,
        );
    }
    known(
        &Cipher::secretbox(&counted(0, 32)).unwrap(),
        &counted(0x80, 24),
        value,
        path,
        "25205344f93489aa90d2aba43ddaccdd5fb1dc298edd2b36fefbeb80d3f6aa3f1164842fdccceed57d4952c304fbdb5469d9d7ceb333c325b29a23fbfea1ed88523a1898",
    );
}

#[test]
fn keys_of_other_lengths_are_none() {
    for length in 0..64 {
        let key = counted(0, length);
        let aes = [16, 24, 32].contains(&length);
        assert_eq!(Cipher::gcm(&key).is_some(), aes);
        assert_eq!(Cipher::cbc(&key).is_some(), aes);
        assert_eq!(Cipher::secretbox(&key).is_some(), length == 32);
    }
}

#[test]
fn what_is_no_ciphertext_is_an_error() {
    let key = counted(0, 32);
    let [gcm, cbc, secretbox] = [
        Cipher::gcm(&key).unwrap(),
        Cipher::cbc(&key).unwrap(),
        Cipher::secretbox(&key).unwrap(),
    ];
    let short = "the stored data was shorter than the required size";
    let forged = "cipher: message authentication failed";
    assert_eq!(gcm.open(&[0; 11], b""), Err(short));
    assert_eq!(gcm.open(&[0; 27], b""), Err(forged));
    assert_eq!(secretbox.open(&[0; 23], b""), Err(short));
    assert_eq!(secretbox.open(&[0; 39], b""), Err(forged));
    assert_eq!(cbc.open(&[0; 15], b""), Err(short));
    assert_eq!(
        cbc.open(&[0; 33], b""),
        Err("the stored data is not a multiple of the block size")
    );
    assert_eq!(
        cbc.open(&[0; 16], b""),
        Err("invalid PKCS7 data (empty or not padded)")
    );
}

#[test]
fn padding_is_checked() {
    let key = counted(0, 16);
    let cipher = Cipher::cbc(&key).unwrap();
    let mut sealed = Vec::new();
    cipher
        .seal_with(&[0; 16], b"0123456789", b"", &mut sealed)
        .unwrap();
    // In CBC a bit of the IV is a bit of the first block: six bytes of padding stand at its end.
    let mut wrong = sealed.clone();
    wrong[11] ^= 1;
    assert_eq!(cipher.open(&wrong, b""), Err("invalid padding on input"));
    let mut zero = sealed.clone();
    zero[15] ^= 6;
    let empty = "invalid PKCS7 data (empty or not padded)";
    assert_eq!(cipher.open(&zero, b""), Err(empty));
    let mut long = sealed;
    long[15] ^= 6 ^ 17;
    assert_eq!(cipher.open(&long, b""), Err(empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_can_be_opened_and_nothing_else(
        value in prop::collection::vec(any::<u8>(), 0..300),
        path in prop::collection::vec(any::<u8>(), 0..60),
        key in prop::collection::vec(any::<u8>(), 32),
        bit in any::<prop::sample::Index>(),
    ) {
        let ciphers = [
            Cipher::gcm(&key[..16]), Cipher::gcm(&key[..24]), Cipher::gcm(&key),
            Cipher::cbc(&key[..16]), Cipher::cbc(&key[..24]), Cipher::cbc(&key),
            Cipher::secretbox(&key),
        ];
        for (number, cipher) in ciphers.into_iter().flatten().enumerate() {
            let mut sealed = Vec::new();
            cipher.seal(&value, &path, &mut sealed).unwrap();
            prop_assert_eq!(cipher.open(&sealed, &path), Ok(value.clone()));
            let mut again = Vec::new();
            cipher.seal(&value, &path, &mut again).unwrap();
            prop_assert_ne!(&sealed, &again, "a nonce is used once");
            let elsewhere = [path.as_slice(), b"x"].concat();
            if number < 3 {
                prop_assert!(cipher.open(&sealed, &elsewhere).is_err());
            }
            // CBC authenticates nothing; a flipped bit may be found by chance alone.
            if !(3..6).contains(&number) {
                let at = bit.index(sealed.len() * 8);
                sealed[at / 8] ^= 1 << (at % 8);
                prop_assert!(cipher.open(&sealed, &path).is_err());
            }
        }
    }

    #[test]
    fn ring_opens_what_we_seal_and_we_what_ring_seals(
        value in prop::collection::vec(any::<u8>(), 0..300),
        path in prop::collection::vec(any::<u8>(), 0..60),
        key in prop::collection::vec(any::<u8>(), 32),
    ) {
        use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let theirs = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let ours = Cipher::gcm(&key).unwrap();
        let mut sealed = Vec::new();
        ours.seal(&value, &path, &mut sealed).unwrap();
        let nonce = Nonce::try_assume_unique_for_key(&sealed[..12]).unwrap();
        let mut data = sealed[12..].to_vec();
        prop_assert_eq!(theirs.open_in_place(nonce, Aad::from(&path), &mut data).unwrap(), value.as_slice());

        let mut data = value.clone();
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        theirs.seal_in_place_append_tag(nonce, Aad::from(&path), &mut data).unwrap();
        let sealed = [[7; 12].as_slice(), &data].concat();
        prop_assert_eq!(ours.open(&sealed, &path), Ok(value));
    }
}
