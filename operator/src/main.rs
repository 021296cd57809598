//! `tsujiban-operator`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Ok(tsujiban_operator::program::run().await?)
}
