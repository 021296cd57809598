//! `tsujiban-traces ADDRESS:PORT`: receives traces, and prints each span as a line of JSON.

use anyhow::{Context, Result};
use tsujiban_traces::{Span, receive};

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: tsujiban-traces ADDRESS:PORT")?;
    let address = address.parse().with_context(|| format!("{address:?} is no ADDRESS:PORT"))?;
    receive(address, |span: Span| println!("{}", serde_json::json!(span))).await
}
