//! `tsujiban-audit serve`, `migrate` and `probe`.

use tsujiban_audit::service::Audit;
use tsujiban_service::program;

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Ok(program::run::<Audit>().await?)
}
