//! The program: reads its options, starts the server, and waits for its end.

use std::io::Write as _;
use std::process::ExitCode;

use tapefeed_server::app::{self, App, Outside};
use tapefeed_server::banner::banner;
use tapefeed_server::config::{Config, ServeConfig, notify_socket};
use tapefeed_server::{notify, shutdown, telemetry};

/// Worth 15 % of the processor under load, measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tapefeed-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::read()?;
    let telemetry = telemetry::init(config.log(), config.traces(rand::random()))?;
    match config {
        Config::Serve(config) => {
            telemetry.follow_file(&config.log)?;
            let served = serve(&config).await;
            telemetry.close().await;
            served
        }
        Config::RenewEpoch { store, .. } => {
            let (epoch, position) = app::renew_epoch(&store, &Outside::system()).await?;
            println!("the log is epoch {epoch} from position {position} on");
            Ok(())
        }
    }
}

async fn serve(config: &ServeConfig) -> Result<(), Box<dyn std::error::Error>> {
    let listener = app::bind(config.listen).await?;
    let outside = Outside::system();
    outside.metrics.spans_dropped_are(telemetry::dropped_spans);
    let app = App::start(config, listener, outside).await?;
    shutdown::on_signals(app.shutdown.asked.clone())?;
    if let Some(socket) = notify_socket() {
        if let Err(error) = notify::tell(&socket, notify::READY) {
            tracing::warn!(%error, "the service manager cannot be told that the server serves");
        }
        let asked = app.shutdown.asked.clone();
        tokio::spawn(async move {
            asked.cancelled().await;
            // It stops all the same.
            let _ = notify::tell(&socket, notify::STOPPING);
        });
    }
    // Nobody has to listen: without a standard output the server serves all the same.
    let _ = std::io::stdout().write_all(banner(&app, config).as_bytes());
    app.ended().await;
    Ok(())
}
