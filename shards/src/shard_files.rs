//! The two files as one shard has them: readers of all of them, writers of its own partitions.

use std::sync::Arc;

use comsipl_core::PARTITIONS;
use comsipl_fdb::{Fdb, Partition};

/// What a shard is given of the two files.
pub struct ShardFiles {
    /// `registered.fdb`, to read.
    pub registered: Arc<Fdb>,
    /// `presence_w.fdb`, to read.
    pub presence: Arc<Fdb>,
    /// The shard's partitions of `registered.fdb`, to write.
    pub registered_partitions: Vec<Partition>,
    /// The shard's partitions of `presence_w.fdb`, to write.
    pub presence_partitions: Vec<Partition>,
}

/// A shard's files with its partitions by number.
pub(crate) struct Files {
    pub(crate) presence: Arc<Fdb>,
    /// `registered.fdb`, of which every shard reads the secrets of all users.
    pub(crate) registered_file: Arc<Fdb>,
    registered: Vec<Option<Partition>>,
    presence_own: Vec<Option<Partition>>,
}

/// What a message may say only to the partition's owner.
const OWNED: &str = "a message is handled by the owner of its partition";

impl Files {
    pub(crate) fn new(files: ShardFiles) -> Self {
        let by_number = |partitions: Vec<Partition>| {
            let mut all: Vec<Option<Partition>> = (0..PARTITIONS).map(|_| None).collect();
            for partition in partitions {
                let number = usize::from(partition.number());
                all[number] = Some(partition);
            }
            all
        };
        Self {
            presence: files.presence,
            registered_file: files.registered,
            registered: by_number(files.registered_partitions),
            presence_own: by_number(files.presence_partitions),
        }
    }

    pub(crate) fn owns(&self, partition: u8) -> bool {
        self.presence_own[usize::from(partition)].is_some()
    }

    pub(crate) fn presence_partition(&self, partition: u8) -> &Partition {
        self.presence_own[usize::from(partition)].as_ref().expect(OWNED)
    }

    pub(crate) fn presence_partition_mut(&mut self, partition: u8) -> &mut Partition {
        self.presence_own[usize::from(partition)].as_mut().expect(OWNED)
    }

    pub(crate) fn registered_partition(&self, partition: u8) -> &Partition {
        self.registered[usize::from(partition)].as_ref().expect(OWNED)
    }

    pub(crate) fn registered_partition_mut(&mut self, partition: u8) -> &mut Partition {
        self.registered[usize::from(partition)].as_mut().expect(OWNED)
    }

    /// The shard's own partitions of both files, in order of their numbers.
    pub(crate) fn own_numbers(&self) -> impl Iterator<Item = u8> + use<> {
        let own: Vec<u8> = (0..PARTITIONS as u8).filter(|&p| self.owns(p)).collect();
        own.into_iter()
    }
}
