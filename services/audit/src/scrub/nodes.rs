//! Repairs hashes of the tree above the leaves, which can be computed from the hashes below them.

use tsujiban_database::on;
use tsujiban_history::merkle::Hash;
use tsujiban_history::tile::{HEIGHT, WIDTH};

use crate::error::Result;
use crate::reading::{Bundle, DayKeys, Log, root};
use crate::service::Audit;

impl Audit {
    /// Computes damaged or missing hashes again from the hashes below them. Returns how many.
    pub(crate) async fn mend_nodes(&self, log: &Log) -> Result<u64> {
        let mut healed = 0;
        for index in 0..log.size() >> HEIGHT {
            let bundle = self.examine(log, index, &mut DayKeys::default()).await?;
            healed += self.mend_bundle(log, index, &bundle).await?.map_or(0, |_| 1);
        }
        Ok(healed + u64::try_from(self.mend_upper(log).await?.len()).unwrap_or_default())
    }

    /// Repairs the hash over one bundle. Returns its name if it was damaged.
    pub(crate) async fn mend_bundle(&self, log: &Log, index: u64, bundle: &Bundle) -> Result<Option<(u8, u64)>> {
        let other = bundle.subtrees.iter().find(|subtree| subtree.is_other && subtree.node.level == HEIGHT);
        let Some(hash) = other.and_then(|subtree| subtree.hash) else { return Ok(None) };
        self.put_healed_node(log.number, (1, index), hash).await?;
        Ok(Some((1, index)))
    }

    /// Repairs the hashes above the bundles' hashes, which are right by now. Returns the names of those that were damaged.
    pub(crate) async fn mend_upper(&self, log: &Log) -> Result<Vec<(u8, u64)>> {
        let (mut healed, width) = (Vec::new(), u64::from(WIDTH));
        for level in 2..=7_u8 {
            let count = log.size() >> (u32::from(level) * u32::from(HEIGHT));
            for number in 0..count {
                let below = self.nodes(log.number, level - 1, number * width..(number + 1) * width).await?;
                let computed = below.into_iter().collect::<Option<Vec<Hash>>>().and_then(root);
                let stored = self.nodes(log.number, level, number..number + 1).await?.into_iter().next().flatten();
                if let Some(computed) = computed.filter(|computed| stored != Some(*computed)) {
                    self.put_healed_node(log.number, (level, number), computed).await?;
                    healed.push((level, number));
                }
            }
        }
        Ok(healed)
    }

    async fn put_healed_node(&self, log: i64, (level, number): (u8, u64), hash: Hash) -> Result<()> {
        const PUT: &str = "INSERT INTO healed_nodes (log, level, number, hash) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        on!(self.database.writes(), p => sqlx::query(PUT)
            .bind(log)
            .bind(i64::from(level))
            .bind(number.cast_signed())
            .bind(hash.as_bytes().to_vec())
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }
}
