//! A node of our own: where nginx is not installed, and to simulate nodes with slow listings, such
//! as those of a single Python process, here or on another machine.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The directories that it serves, and its behaviour.
#[derive(Clone)]
pub struct Served {
    /// The directory of listings, as `STREAM/VARIANT.json` and `STREAM/VARIANT/HOUR.json`.
    pub listings: PathBuf,
    /// The directory of segments.
    pub archive: PathBuf,
    /// How long it is busy with a listing. It makes one at a time.
    pub takes: Duration,
    /// Whether that uses the processor of another machine instead of this one's.
    pub is_elsewhere: bool,
}

/// Starts the server, which runs until the benchmark ends.
pub fn start(at: SocketAddr, served: Served) {
    let listener = TcpListener::bind(at).unwrap();
    let busy = Arc::new(Mutex::new(()));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (served, busy) = (served.clone(), busy.clone());
            thread::spawn(move || serve(&client, &served, &busy));
        }
    });
}

/// Responds to the requests of a connection until the client closes it.
fn serve(client: &TcpStream, served: &Served, busy: &Mutex<()>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut lines = BufReader::new(client).lines();
    while let Some(request) = lines.next().transpose()? {
        let mut takes_gzip = false;
        while let Some(header) = lines.next().transpose()?.filter(|header| !header.is_empty()) {
            let header = header.to_ascii_lowercase();
            takes_gzip |= header.starts_with("accept-encoding:") && header.contains("gzip");
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().replace("%3A", ":");
        let file = match path.strip_prefix("/files/") {
            Some(listing) => {
                if listing.matches('/').count() == 2 {
                    let _one_at_a_time = busy.lock().unwrap();
                    if served.is_elsewhere {
                        thread::sleep(served.takes);
                    } else {
                        work(served.takes);
                    }
                }
                served.listings.join(format!("{listing}.json"))
            }
            None => served.archive.join(path.trim_start_matches("/segments/")),
        };
        let compressed = file.with_extension("json.gz");
        if takes_gzip && compressed.is_file() {
            answer(client, &compressed, "Content-Encoding: gzip\r\n")?;
        } else {
            answer(client, &file, "")?;
        }
    }
    Ok(())
}

fn answer(mut client: &TcpStream, file: &Path, header: &str) -> io::Result<()> {
    let (status, length) = match fs::metadata(file) {
        Ok(found) if found.is_file() => ("200 OK", found.len()),
        _ => ("404 Not Found", 0),
    };
    write!(client, "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\n\r\n")?;
    if length > 0 {
        // In the kernel, like nginx.
        io::copy(&mut File::open(file)?, &mut client)?;
    }
    Ok(())
}

/// Keeps a processor busy.
fn work(takes: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < takes {
        std::hint::spin_loop();
    }
}
