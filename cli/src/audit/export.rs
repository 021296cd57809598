//! `tsujiban audit export`.

use std::io::{self, Write};
use std::path::PathBuf;

use tokio_stream::StreamExt;
use tsujiban_proto::audit::v1::{ExportEntriesRequest, ExportFormat};
use tsujiban_proto::time::to_wire;

use super::HistoryOwner;
use super::reading::{Form, Incomplete, Read, Reading};
use super::span::Span;
use crate::exit::{ExitCode, Verdict};
use crate::failure::Failure;
use crate::file::{FileError, NewFile};
use crate::output::{Answer, bytes, escape_line};
use crate::progress::Progress;
use crate::service::HistoryService;

/// What is exported, and where to.
#[derive(Debug)]
pub struct Wanted {
    pub span: Span,
    pub form: Form,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    /// Where the signed checkpoint is written that the export ends with.
    pub checkpoint: Option<PathBuf>,
    /// Whether files that exist are replaced.
    pub force: bool,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("CSV has no checkpoint, for it cannot be verified; leave --save-checkpoint out, or export --format jsonl")]
    NoCheckpoint,
    #[error("the export and its checkpoint are two files; name them differently")]
    OneFile,
    #[error("interrupted: the export is not whole; nothing was written to a file")]
    Interrupted,
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("standard output cannot be written")]
    Output(#[from] io::Error),
}

impl ExitCode for ExportError {}

/// Where the pieces go.
enum Sink {
    File(NewFile),
    Output(io::Stdout),
}

/// Streams a history into a file, which appears only when it is complete, or to standard output. Ends early when `interrupted` does.
pub async fn export(
    service: &HistoryService,
    whose: &HistoryOwner,
    wanted: &Wanted,
    interrupted: impl Future<Output = ()>,
) -> Result<Answer, Failure> {
    let (sink, checkpoint) = prepare(wanted)?;
    let request = ExportEntriesRequest {
        group: whose.on_the_wire(),
        from: wanted.span.from.map(to_wire),
        to: wanted.span.to.map(to_wire),
        format: match wanted.form {
            Form::JsonLines => ExportFormat::JsonLines,
            Form::Csv => ExportFormat::Csv,
        }
        .into(),
    };
    let copied = tokio::select! {
        copied = copy(service, request, wanted.form, sink) => copied?,
        () = interrupted => return Err(ExportError::Interrupted.into()),
    };
    let Some(Copied { read, uncovered }) = copied else { return Ok(Answer { text: String::new(), verdict: Verdict::Good }) };
    if let (Some(mut file), Some((_, note))) = (checkpoint, &read.signed) {
        file.write(note.as_bytes()).and_then(|()| file.finish()).map_err(ExportError::from)?;
    }
    let text = summary(whose, wanted, &read, uncovered);
    let verdict = if read.damaged > 0 { Verdict::Damaged } else { Verdict::Good };
    if wanted.output.is_some() {
        return Ok(Answer { text, verdict });
    }
    // standard output contains nothing but the export
    let mut progress = Progress::on_stderr();
    text.lines().for_each(|line| progress.note(line));
    Ok(Answer { text: String::new(), verdict })
}

/// Opens the files before any request is sent, so that none is sent when they cannot be written.
fn prepare(wanted: &Wanted) -> Result<(Sink, Option<NewFile>), ExportError> {
    if wanted.form == Form::Csv && wanted.checkpoint.is_some() {
        return Err(ExportError::NoCheckpoint);
    }
    if wanted.checkpoint.is_some() && wanted.checkpoint == wanted.output {
        return Err(ExportError::OneFile);
    }
    let sink = match &wanted.output {
        Some(path) => Sink::File(NewFile::begin(path, wanted.force)?),
        None => Sink::Output(io::stdout()),
    };
    let checkpoint = wanted.checkpoint.as_ref().map(|path| NewFile::begin(path, wanted.force)).transpose()?;
    Ok((sink, checkpoint))
}

/// What was copied.
struct Copied {
    read: Read,
    /// How many newer entries are not in it, since no root list covers them yet.
    uncovered: u64,
}

/// `None` when the reader of standard output has closed it.
async fn copy(service: &HistoryService, request: ExportEntriesRequest, form: Form, mut sink: Sink) -> Result<Option<Copied>, Failure> {
    let mut pieces = service.client().export_entries(service.request(request).await?).await?.into_inner();
    let (mut reading, mut uncovered) = (Reading::new(form), 0);
    let mut progress = Progress::on_stderr();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        uncovered = piece.uncovered;
        let piece = piece.chunk;
        reading.push(&piece);
        match &mut sink {
            Sink::File(file) => file.write(&piece).map_err(ExportError::from)?,
            Sink::Output(out) => match out.write_all(&piece) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
                written => written.map_err(ExportError::from)?,
            },
        }
        let (entries, of, size) = reading.progress();
        let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
        progress.say(&format!("{entries}{of} entries, {}", bytes(size)));
    }
    let read = reading.finish().map_err(ExportError::from)?;
    match sink {
        Sink::File(file) => file.finish().map_err(ExportError::from)?,
        Sink::Output(mut out) => out.flush().map_err(ExportError::from)?,
    }
    Ok(Some(Copied { read, uncovered }))
}

/// Says what was written, and how to verify it.
fn summary(whose: &HistoryOwner, wanted: &Wanted, read: &Read, uncovered: u64) -> String {
    let file = wanted.output.as_ref().map(|path| escape_line(&path.to_string_lossy()));
    let to = file.as_ref().map(|file| format!(" to {file}")).unwrap_or_default();
    let mut wrote = format!("Wrote {} entries ({}) of {whose}{to}.\n", read.entries, bytes(read.bytes));
    if read.damaged > 0 {
        let damaged = format!(
            "DAMAGED: {} entries are damaged where the audit service stores them; the export says which. Tell the platform's staff: \
             docs/history.md says what they can do.\n",
            read.damaged
        );
        wrote.push_str(&damaged);
    }
    if uncovered > 0 {
        let newer = format!(
            "NOT IN IT: {uncovered} newer entries, which no root list in the bucket covers yet. Lists are put every minute while the storage \
             answers: export again later.\n"
        );
        wrote.push_str(&newer);
    }
    let Some((origin, _)) = &read.signed else {
        return wrote + "CSV is for reading; what is to be verified is exported with --format jsonl.\n";
    };
    let file = file.unwrap_or_else(|| "FILE".to_owned());
    let (kept, of) = match &wanted.checkpoint {
        Some(path) => {
            let path = escape_line(&path.to_string_lossy());
            let kept = format!("Its signed checkpoint is in {path}: keep it, for later exports have to continue it.\n");
            (kept, format!("--checkpoint {path}"))
        }
        None => (String::new(), format!("--log {origin}")),
    };
    format!(
        "{wrote}{kept}Verify it, anywhere and offline, with the public key that was written down when the environment was set up:\n  \
         tsujiban audit verify {file} {of} --key KEY\n"
    )
}
