//! `tsujiban-scratch serve`.

use tsujiban_scratch::service::Scratch;
use tsujiban_service::program;

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Ok(program::run::<Scratch>().await?)
}
