//! Runs the baseline: Debian's RANCID on the same routers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::SESSIONS;
use super::fleet::{Fleet, PASSWORD, USER};

/// The user `nobody`: RANCID refuses to run as root.
const UNPRIVILEGED: u32 = 65_534;
const GROUP: &str = "bench";
const PATIENCE: Duration = Duration::from_mins(30);
const PROGRAMS: &str = "/usr/lib/rancid/bin";

pub struct Rancid {
    folder: PathBuf,
}

impl Rancid {
    /// Sets up a group with all routers, in a folder that becomes that of an unprivileged user.
    pub async fn new(folder: &Path, fleet: &Fleet) -> Result<Self> {
        for program in ["rancid-run", "rancid-cvs", "clogin"] {
            ensure!(Path::new(PROGRAMS).join(program).exists(), "RANCID is not installed; run `apt-get install rancid`");
        }
        let rancid = Self { folder: folder.to_owned() };
        let file = |name: &str| folder.join(name);
        // readable by nobody else: clogin insists
        let private = |name: &str, text: String| -> Result<()> {
            fs::write(file(name), text)?;
            fs::set_permissions(file(name), fs::Permissions::from_mode(0o600))?;
            Ok(chown(file(name), Some(UNPRIVILEGED), Some(UNPRIVILEGED))?)
        };
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        chown(folder, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        private("rancid.conf", conf(folder))?;
        private(".cloginrc", cloginrc(folder))?;
        private("ssh_config", ssh_config(folder))?;
        private("known_hosts", known_hosts(fleet)?)?;
        rancid.run("rancid-cvs").await?;
        let routers = fleet.routers.iter().map(|router| format!("{};frr;up\n", router.address));
        private("bench/router.db", routers.collect())?;
        Ok(rancid)
    }

    /// One run over the group, from the start of the program to its end. An error unless it stored each router's config.
    pub async fn collect(&self, fleet: &Fleet) -> Result<Duration> {
        let begin = Instant::now();
        self.run("rancid-run").await?;
        let took = begin.elapsed();
        self.check(fleet).await.with_context(|| format!("RANCID's log ends with:\n{}", self.log()))?;
        Ok(took)
    }

    async fn run(&self, program: &str) -> Result<()> {
        let mut command = self.command(&format!("{PROGRAMS}/{program}"));
        command.arg("-f").arg(self.folder.join("rancid.conf")).arg(GROUP);
        let output = timeout(PATIENCE, command.output()).await.with_context(|| format!("{program} does not end"))??;
        ensure!(output.status.success(), "{program} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{PROGRAMS}:/usr/bin:/bin"))
            .env("HOME", &self.folder)
            .env("USER", "nobody")
            .current_dir(&self.folder)
            .uid(UNPRIVILEGED)
            .gid(UNPRIVILEGED)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Everything is committed, and what is committed of each router are the lines of its config. RANCID says `!` where it
    /// adds something of its own, and leaves some of those lines out.
    async fn check(&self, fleet: &Fleet) -> Result<()> {
        let group = self.folder.join(GROUP);
        let status = self.command("/usr/bin/git").args(["status", "--porcelain"]).current_dir(&group).output().await?;
        ensure!(status.status.success() && status.stdout.is_empty(), "not committed:\n{}", String::from_utf8_lossy(&status.stdout));
        for router in &fleet.routers {
            let stored = fs::read_to_string(group.join("configs").join(router.address.to_string()))
                .with_context(|| format!("the config of {}", router.address))?;
            let config = router.config();
            let lines = |text| str::lines(text).filter(|line: &&str| !line.starts_with('!') && !line.is_empty());
            ensure!(lines(&stored).eq(lines(&config)), "the stored config of {} is not the one that it has", router.address);
        }
        Ok(())
    }

    /// The end of the newest log.
    fn log(&self) -> String {
        let logs = fs::read_dir(self.folder.join("logs")).into_iter().flatten().flatten();
        let newest = logs.max_by_key(|log| log.metadata().and_then(|found| found.modified()).ok());
        let text = newest.and_then(|log| fs::read_to_string(log.path()).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

/// As Debian's, but with folders of its own, git, as many sessions as the collector has, and no mail.
fn conf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "TERM=network; export TERM\nLC_COLLATE=POSIX; export LC_COLLATE\numask 027\nTMPDIR={folder}; export TMPDIR\n\
         BASEDIR={folder}; export BASEDIR\nPATH={PROGRAMS}:/usr/bin:/bin; export PATH\nCVSROOT=$BASEDIR/CVS; export CVSROOT\n\
         LOGDIR=$BASEDIR/logs; export LOGDIR\nRCSSYS=git; export RCSSYS\nSENDMAIL=/bin/true; export SENDMAIL\n\
         PAR_COUNT={SESSIONS}; export PAR_COUNT\nFILTER_PWDS=NO; export FILTER_PWDS\nLIST_OF_GROUPS={GROUP}; export LIST_OF_GROUPS\n"
    )
}

fn cloginrc(folder: &Path) -> String {
    format!(
        "add method * {{ssh}}\nadd user * {{{USER}}}\nadd password * {{{PASSWORD}}}\nadd autoenable * {{1}}\nadd sshcmd * {{ssh\\ -F\\ {}/ssh_config}}\n",
        folder.display()
    )
}

/// The host keys are known and checked, as the collector does.
fn ssh_config(folder: &Path) -> String {
    format!(
        "UserKnownHostsFile {}/known_hosts\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nHashKnownHosts no\n",
        folder.display()
    )
}

fn known_hosts(fleet: &Fleet) -> Result<String> {
    fleet.routers.iter().map(|router| Ok(format!("{} {}\n", router.address, router.public_key()?))).collect()
}
