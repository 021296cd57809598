//! `tsujiban`, for the people who run the platform.

mod args;
mod audit;
mod backup;
mod cluster;
mod confirm;
mod conformance;
mod exit;
mod failure;
mod file;
mod functions;
mod groups;
mod hostkeys;
mod output;
mod progress;
mod service;
mod snapshots;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tsujiban_core::clock::{Clock, SystemClock};
use uuid::Uuid;

use crate::args::{Audit, Backup, Cli, Command, Groups, Hostkeys, Snapshots};
use crate::cluster::Cluster;
use crate::exit::Verdict;
use crate::failure::{Failure, explain};
use crate::output::{Answer, AnswerError};
use crate::service::{HistoryService, Service};
use crate::snapshots::resolve;

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = run(Cli::parse()).await.and_then(|answer| {
        let mut out = io::stdout().lock();
        match out.write_all(answer.text.as_bytes()).and_then(|()| out.flush()) {
            // a reader such as `head` may close the output early
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(AnswerError::Output(error).into()),
            _ => Ok(answer.verdict),
        }
    });
    match outcome {
        Ok(verdict) => verdict.exit_code().into(),
        Err(failure) => {
            // there is no other place for the message when standard error is closed
            let _ = writeln!(io::stderr(), "error: {}", explain(&failure));
            ExitCode::from(failure.verdict.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<Answer, Failure> {
    let outer = cli.output;
    let cluster = async || Cluster::of(cli.global.context.as_deref(), &cli.global.system_namespace).await;
    let service = async |cluster: &Cluster| Service::connect(cluster, cli.global.staff.as_ref(), SystemClock).await;
    match cli.command {
        Command::Version => Ok(Answer { text: concat!("tsujiban ", env!("CARGO_PKG_VERSION"), "\n").to_owned(), verdict: Verdict::Good }),
        Command::Backup(Backup::Now { group, no_wait, output }) => {
            let random = Uuid::now_v7().simple().to_string();
            let suffix = random.get(24..).unwrap_or(&random);
            backup::now::now(&cluster().await?, &group, !no_wait, suffix, output.or(outer)).await
        }
        Command::Backup(Backup::Rebuild { output }) => backup::rebuild(&service(&cluster().await?).await?, output.or(outer)).await,
        Command::Snapshots(command) => snapshots(&service(&cluster().await?).await?, command, outer).await,
        Command::Groups(Groups::List { retained, output }) => {
            groups::list(&service(&cluster().await?).await?, retained, output.or(outer)).await
        }
        Command::Groups(Groups::Erase { group, incarnation, yes, output }) => {
            groups::erase(&service(&cluster().await?).await?, &group, &incarnation, yes, output.or(outer)).await
        }
        Command::Conformance { tenant, as_group, language, output } => {
            conformance::check(&cluster().await?, &tenant, &as_group, language.into(), output.or(outer)).await
        }
        Command::Audit(command) => audit(command, &cli.global, outer).await,
        Command::Functions { language, output } => functions::list(language.into(), output.or(outer)),
        Command::Hostkeys(Hostkeys::Show { group, device, output }) => {
            let cluster = cluster().await?;
            hostkeys::show(&cluster, &service(&cluster).await?, &group, &device, output.or(outer)).await
        }
        Command::Hostkeys(Hostkeys::Replace { group, device, expected, new, output }) => {
            let cluster = cluster().await?;
            hostkeys::replace(&cluster, &service(&cluster).await?, &group, &device, (expected, new), output.or(outer)).await
        }
    }
}

async fn audit(command: Audit, global: &args::Global, outer: args::Output) -> Result<Answer, Failure> {
    let service = async || {
        let cluster = Cluster::of(global.context.as_deref(), &global.system_namespace).await?;
        Ok::<_, Failure>(HistoryService::connect(&cluster, global.staff.as_ref(), SystemClock).await?)
    };
    match command {
        Audit::List { whose, wanted, output } => {
            let wanted: audit::list::Wanted = (*wanted).try_into()?;
            audit::list::list(&service().await?, &whose.into(), &wanted, output.or(outer)).await
        }
        Audit::Export { whose, wanted } => {
            let wanted: audit::export::Wanted = wanted.try_into()?;
            let interrupted = async {
                // where no handler can be installed, the signal ends the process by default
                if tokio::signal::ctrl_c().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            audit::export::export(&service().await?, &whose.into(), &wanted, interrupted).await
        }
        Audit::Verify { export, log, key, checkpoints, lists, output } => {
            let evidence = audit::verify::Evidence { export: &export, log, key, checkpoints: &checkpoints, lists: &lists };
            audit::verify::verify(evidence, SystemClock.now(), output.or(outer))
        }
        Audit::DeclareGap { scope, reason, yes, output } => {
            audit::gap::declare(&service().await?, &scope.into(), &reason, yes, output.or(outer)).await
        }
    }
}

async fn snapshots(service: &Service, command: Snapshots, outer: args::Output) -> Result<Answer, Failure> {
    match command {
        Snapshots::List { group, device, output } => snapshots::list(service, &group, device.as_deref(), output.or(outer)).await,
        Snapshots::Show { group, snapshot, reveal, output } => {
            let id = resolve(service, &group, &snapshot).await?;
            snapshots::show(service, &group, &id, reveal, output.or(outer)).await
        }
        Snapshots::Diff { group, old: Some(old), new: Some(new), reveal, output, .. } => {
            let (old, new) = (resolve(service, &group, &old).await?, resolve(service, &group, &new).await?);
            snapshots::diff(service, &group, (&old, &new), reveal, output.or(outer)).await
        }
        Snapshots::Diff { group, device, reveal, output, .. } => {
            snapshots::diff_newest(service, &group, &device.unwrap_or_default(), reveal, output.or(outer)).await
        }
        Snapshots::Verify { group, snapshot: None, output, .. } => snapshots::verify(service, &group, None, output.or(outer)).await,
        Snapshots::Verify { group, snapshot: Some(snapshot), output, .. } => {
            let id = resolve(service, &group, &snapshot).await?;
            snapshots::verify(service, &group, Some(&id), output.or(outer)).await
        }
        Snapshots::Restore { group, snapshot, output, force } => {
            let id = resolve(service, &group, &snapshot).await?;
            snapshots::restore::restore(service, &group, &id, &output, force).await
        }
        Snapshots::Acknowledge { group, snapshot, output } => {
            let id = resolve(service, &group, &snapshot).await?;
            snapshots::acknowledge(service, &group, &id, output.or(outer)).await
        }
    }
}
