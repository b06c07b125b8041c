//! Signs up, sends a message to itself, takes what the feed brings, logs out.
//!
//! `cargo run -p quail-client --example hello -- 'quail://ada@localhost:7824?pin=sha256:...' PASSWORD`

use anyhow::Context;
use quail_client::{Address, Client, Event, Guest, MemoryStore, Options};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: Address = arguments.next().context("the first argument is the address")?.parse()?;
    let password = arguments.next().context("the second argument is a password")?;
    let handle = address.handle.as_deref().context("the address names an account: quail://ada@...")?;

    let guest = Guest::connect(&address, Options::default()).await?;
    let credentials = guest.sign_up(handle, &password, None).await?;
    guest.close().await;

    let client = Client::open(&address, &credentials, MemoryStore::new(), Options::default()).await?;
    let mut events = client.events().await?;
    let sending = client.send(client.account(), "hello, me").await?;
    println!("accepted at position {}", sending.accepted().await?.position);

    // Whatever waited for this device comes first, then the end of it.
    loop {
        let event = events.next().await?.acknowledge();
        println!("{event:?}");
        if event == Event::CaughtUp {
            break;
        }
    }
    client.log_out().await?;
    Ok(())
}
