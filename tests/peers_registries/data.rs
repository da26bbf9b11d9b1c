//! An image in the folder of a docker-registry, as it keeps them itself: pushing a large one would
//! take longer than pulling it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::support::{Content, Image, Layer};

/// The length of the large layer, in bytes.
pub(crate) const LARGE: u64 = 286 * 1000 * 1000;

/// Puts an image with a layer of [`LARGE`] bytes that do not compress into the folder `data`, as
/// `large:1`.
pub(crate) fn large(data: &Path) -> Image {
    let image = Image::of(&[Layer::generated(286, LARGE)]);
    let root = data.join("docker/registry/v2");
    let repository = root.join("repositories/large");
    for (digest, content) in image.closure() {
        let hex = digest.strip_prefix("sha256:").unwrap();
        blob(&root.join(format!("blobs/sha256/{}/{hex}", &hex[..2])), &content);
        if digest != image.digest {
            link(&repository.join(format!("_layers/sha256/{hex}")), &digest);
        }
    }
    let hex = image.digest.strip_prefix("sha256:").unwrap();
    let manifests = repository.join("_manifests");
    link(&manifests.join(format!("revisions/sha256/{hex}")), &image.digest);
    link(&manifests.join("tags/1/current"), &image.digest);
    link(&manifests.join(format!("tags/1/index/sha256/{hex}")), &image.digest);
    image
}

fn link(folder: &Path, digest: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("link"), digest).unwrap();
}

fn blob(folder: &Path, content: &Content) {
    fs::create_dir_all(folder).unwrap();
    let mut file = File::create(folder.join("data")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < content.len() {
        let read = content.read_at(at, &mut buffer);
        file.write_all(&buffer[..read]).unwrap();
        at += read as u64;
    }
}
