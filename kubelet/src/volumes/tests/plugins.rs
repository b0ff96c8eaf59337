//! Plug-ins of others.

use super::*;

#[test]
fn a_plug_in_can_be_replaced_and_is_asked_to_tear_down() {
    struct Mine(Arc<Mutex<Vec<PathBuf>>>);

    #[async_trait]
    impl VolumePlugin for Mine {
        fn name(&self) -> &str {
            "kubernetes.io/empty-dir"
        }

        fn handles(&self, volume: &k8s_openapi::api::core::v1::Volume) -> bool {
            volume.empty_dir.is_some()
        }

        async fn set_up(
            &self,
            request: &VolumeRequest<'_>,
        ) -> Result<crate::parts::ReadyVolume, VolumeError> {
            request.make_dir(0o700).await?;
            let file = Projection {
                data: "mine".into(),
                mode: 0o644,
                user: None,
            };
            request.write_files([("a".to_owned(), file)].into()).await?;
            Ok(crate::parts::ReadyVolume {
                path: request.dir.clone(),
                ..Default::default()
            })
        }

        async fn tear_down(&self, dir: &Path) -> Result<(), VolumeError> {
            let mut asked = self.0.lock();
            asked.push(dir.to_owned());
            if asked.len() == 1 {
                return Err(VolumeError::Refused("not yet".to_owned()));
            }
            Ok(())
        }
    }

    run(|mut room| async move {
        let names = room.manager.plugin_names().len();
        let asked = Arc::new(Mutex::new(Vec::new()));
        room.manager = room.manager.plugin(Mine(asked.clone()));
        assert_eq!(room.manager.plugin_names().len(), names);
        let pod = pod(json!([{"name": "v", "emptyDir": {}}]), json!({}));
        room.manager.set_up(&pod).await.unwrap();
        let dir = room
            .root
            .path()
            .join("pods/u/volumes/kubernetes.io~empty-dir/v");
        assert_eq!(read(&dir.join("a")), "mine");
        let error = room.manager.tear_down("u").await.unwrap_err();
        assert!(error.message.ends_with("not yet") && dir.exists());
        room.manager.tear_down("u").await.unwrap();
        assert_eq!(*asked.lock(), [dir.clone(), dir]);
    });
}
