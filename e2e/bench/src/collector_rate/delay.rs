//! A wire with latency. What goes in comes out later, as fast as it went in: a delay of each byte, not of each read.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const CHUNK: usize = 32 << 10;

/// The far end of a connection that was just accepted, `latency` away in each direction.
///
/// The kernel has shaken hands with the client at once. To the client it must look as if that had taken its one and a half round
/// trips: the first byte of the client leaves after one round trip, and the far end learns of the connection half a round trip later.
pub async fn far_end(near: TcpStream, latency: Duration) -> io::Result<DuplexStream> {
    near.set_nodelay(true)?;
    let accepted = Instant::now();
    let (far, end) = duplex(CHUNK);
    sleep_until(accepted + 2 * latency).await;
    let (near_read, near_write) = near.into_split();
    let (end_read, end_write) = split(end);
    tokio::spawn(line(near_read, end_write, latency));
    sleep_until(accepted + 3 * latency).await;
    tokio::spawn(line(end_read, near_write, latency));
    Ok(far)
}

/// Carries what can be read until its end, each byte `latency` after it came. What is on its way is kept in memory.
async fn line(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, latency: Duration) {
    let (enter, mut leave) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            let bytes = chunk.get(..count).unwrap_or_default().to_vec();
            if enter.send((Instant::now() + latency, bytes)).is_err() {
                return;
            }
        }
        let _ = enter.send((Instant::now() + latency, Vec::new()));
    };
    let write = async move {
        while let Some((due, bytes)) = leave.recv().await {
            sleep_until(due).await;
            let written = if bytes.is_empty() { to.shutdown().await } else { to.write_all(&bytes).await };
            if written.is_err() {
                return; // the other side is gone; reading ends with the next byte
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(100);

    /// Sends a letter every 20 ms and tells when each arrived.
    #[tokio::test(start_paused = true)]
    async fn bytes_follow_each_other_as_they_were_sent() {
        let (mut near, near_end) = duplex(CHUNK);
        let (far_end, mut far) = duplex(CHUNK);
        tokio::spawn(line(near_end, far_end, LATENCY));
        let start = Instant::now();
        let send = async {
            for letter in b"abcde" {
                near.write_all(&[*letter]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            near.shutdown().await.unwrap();
        };
        let receive = async {
            let mut arrived = Vec::new();
            let mut one = [0];
            while far.read(&mut one).await.unwrap() == 1 {
                arrived.push((one[0], start.elapsed().as_millis()));
            }
            (arrived, start.elapsed().as_millis())
        };
        let ((), (arrived, ended)) = tokio::join!(send, receive);
        // tokio's clock has a resolution of 1 ms
        for ((letter, at), (expected, due)) in arrived.iter().zip([(b'a', 100), (b'b', 120), (b'c', 140), (b'd', 160), (b'e', 180)]) {
            assert!(*letter == expected && (due..due + 3).contains(at), "{arrived:?}");
        }
        assert!(arrived.len() == 5 && (200..203).contains(&ended), "{arrived:?}, ended at {ended}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_far_end_answers_after_two_round_trips() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let start = Instant::now();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let mut far = far_end(near, LATENCY).await.unwrap();
        assert!((300..305).contains(&start.elapsed().as_millis()), "known at the far end after one and a half: {:?}", start.elapsed());
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        far.write_all(&heard).await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard == *b"hello" && (400..410).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}
