//! The blobs that operations are about, and what a plain map says that the store should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use layerstore::Descriptor;
use layerstore::oci::{Algorithm, MediaType};

pub(crate) struct Known {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    /// By number.
    pub(crate) children: Vec<usize>,
}

/// Five plain blobs, the first of them empty and the last too large to be unlinked under the gate;
/// two manifests that share some of them, and an index of these two.
pub(crate) fn known() -> &'static [Known] {
    static ALL: OnceLock<Vec<Known>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        for bytes in [vec![], b"{}".to_vec(), vec![7; 70], vec![9; 33], vec![1; 1 << 20]] {
            add(&mut all, "application/vnd.oci.image.layer.v1.tar", bytes, vec![]);
        }
        for layers in [vec![1, 0, 2], vec![1, 2, 3, 4]] {
            let [config, rest @ ..] = &layers[..] else { unreachable!("each has a config") };
            let json = |n: &usize| serde_json::to_value(&all[*n].descriptor).unwrap();
            let rest: Vec<_> = rest.iter().map(json).collect();
            let manifest = serde_json::json!({"schemaVersion": 2,
                "mediaType": MediaType::OCI_MANIFEST, "config": json(config), "layers": rest});
            add(&mut all, MediaType::OCI_MANIFEST, manifest.to_string().into_bytes(), layers);
        }
        let manifests: Vec<_> = all[5..].iter().map(|it: &Known| &it.descriptor).collect();
        let index = serde_json::json!({"schemaVersion": 2,
            "mediaType": MediaType::OCI_INDEX, "manifests": manifests});
        add(&mut all, MediaType::OCI_INDEX, index.to_string().into_bytes(), vec![5, 6]);
        all
    })
}

fn add(all: &mut Vec<Known>, media_type: &str, bytes: Vec<u8>, children: Vec<usize>) {
    let digest = Algorithm::Sha256.digest(&bytes);
    let descriptor = Descriptor::new(MediaType::new(media_type), digest, bytes.len() as u64);
    all.push(Known { descriptor, bytes, children });
}

/// What is expected.
#[derive(Default)]
pub(crate) struct Expected {
    /// The blobs, and whether each is whole.
    pub(crate) blobs: BTreeMap<usize, bool>,
    pub(crate) refs: BTreeMap<String, usize>,
    /// The held leases by slot.
    pub(crate) leases: BTreeMap<usize, Pins>,
    pub(crate) lasting: BTreeMap<String, usize>,
    pub(crate) parts: BTreeMap<usize, ExpectedPart>,
    /// The blob whose part is held.
    pub(crate) held: Option<usize>,
    /// Leases of processes that have died.
    pub(crate) dead: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Pins {
    pub(crate) blobs: BTreeSet<usize>,
    pub(crate) trees: BTreeSet<usize>,
}

#[derive(Clone, Default)]
pub(crate) struct ExpectedPart {
    /// The file.
    pub(crate) data: Vec<u8>,
    /// Which bytes are there.
    pub(crate) there: Vec<bool>,
    /// What the account says, where there is one.
    pub(crate) noted: Option<Vec<bool>>,
}

impl ExpectedPart {
    /// What the next holder finds.
    pub(crate) fn adopt(&mut self) {
        let within = |at: usize| at < self.data.len();
        match &self.noted {
            Some(noted) => {
                self.there = noted.iter().enumerate().map(|(at, it)| *it && within(at)).collect();
                self.noted = Some(self.there.clone());
            }
            None => {
                self.there = (0..self.there.len()).map(within).collect();
            }
        }
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let missing = bytes.iter().enumerate().filter(|(at, _)| !self.there[offset + at]);
        let missing: Vec<_> = missing.map(|(at, byte)| (offset + at, *byte)).collect();
        let Some((first, _)) = missing.first() else {
            return;
        };
        // Bytes go in piece by piece; the first piece after a gap begins the account.
        let mut gap = self.there.iter().position(|it| !it).unwrap_or(self.there.len());
        let mut at = *first;
        for (place, byte) in missing.iter().copied() {
            let begins = place == *first || place != at + 1;
            at = place;
            gap = gap.max(self.there.iter().position(|it| !it).unwrap_or(self.there.len()));
            if begins && place != gap && self.noted.is_none() {
                self.noted = Some(self.there.clone());
            }
            if self.data.len() <= place {
                self.data.resize(place + 1, 0);
            }
            self.data[place] = byte;
            self.there[place] = true;
        }
    }
}

impl Expected {
    pub(crate) fn is_there(&self, blob: usize) -> bool {
        self.blobs.get(&blob) == Some(&true)
    }

    /// Whether a ref or a lease names it as something that may be made of others.
    pub(crate) fn is_root(&self, blob: usize) -> bool {
        self.refs.values().chain(self.lasting.values()).any(|root| *root == blob)
            || self.leases.values().any(|pins| pins.trees.contains(&blob))
    }

    /// A blob and all that it leads to, as far as it is there.
    pub(crate) fn tree(&self, root: usize, found: &mut BTreeSet<usize>) {
        found.insert(root);
        if self.is_there(root) {
            known()[root].children.iter().for_each(|child| self.tree(*child, found));
        }
    }

    /// What a collection has to leave.
    pub(crate) fn live(&self) -> BTreeSet<usize> {
        let mut live: BTreeSet<usize> = self.held.into_iter().collect();
        for root in self.refs.values().chain(self.lasting.values()) {
            self.tree(*root, &mut live);
        }
        for pins in self.leases.values() {
            live.extend(&pins.blobs);
            pins.trees.iter().for_each(|root| self.tree(*root, &mut live));
        }
        live
    }

    /// Whether all is there that a root is made of; platforms of an index may be absent.
    pub(crate) fn is_whole(&self, root: usize) -> bool {
        let children = &known()[root].children;
        // Of an index one platform has to be there.
        let optional = root == 7;
        if optional && !children.iter().any(|child| self.is_there(*child)) {
            return false;
        }
        self.is_there(root)
            && children.iter().all(|child| match optional && !self.is_there(*child) {
                true => true,
                false => self.is_whole(*child),
            })
    }
}
