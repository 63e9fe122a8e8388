//! One container of the runtime under test, removed by force when it goes out of scope.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::bundle::GUEST;
use super::{Cmd, Context, Failure, Lines, Outcome, Report, Run, children, eventually};
use crate::check_eq;

pub struct Container<'c> {
    pub context: &'c Context,
    pub id: String,
    pub bundle: PathBuf,
    /// cgroupsPath in the config: `/kelson-test-<pid>-<n>/<id>` unless the test chose another.
    pub options: Vec<String>,
    /// Standard output of the container's process after [`Container::create`].
    lines: Option<Lines>,
    /// Standard error of the container's process, and of the runtime's create.
    stderr: PathBuf,
    forgotten: bool,
}

impl<'c> Container<'c> {
    pub(super) fn new(context: &'c Context, id: String, bundle: PathBuf, options: Vec<String>) -> Self {
        let stderr = context.next_io().with_extension("container");
        Container { context, id, bundle, options, lines: None, stderr, forgotten: false }
    }

    /// `RUNTIME --root R VERB`, the id not yet given.
    pub fn verb(&self, verb: &str) -> Cmd<'c> {
        self.context.runtime().arg(verb)
    }

    /// `RUNTIME run --bundle B OPTIONS ID`, in the foreground.
    pub fn run_command(&self) -> Cmd<'c> {
        self.context.maker().arg("run").arg("--bundle").arg(&self.bundle).args(&self.options).arg(&self.id)
    }

    /// `RUNTIME create --bundle B OPTIONS ID` whose output goes where [`Container::line`] reads.
    pub fn create_command(&mut self) -> Outcome<Cmd<'c>> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        self.lines = Some(Lines::new(read));
        let input: OwnedFd = File::open("/dev/null")?.into();
        let errors: OwnedFd = File::options().create(true).append(true).open(&self.stderr)?.into();
        let command =
            self.context.maker().arg("create").arg("--bundle").arg(&self.bundle).args(&self.options).arg(&self.id);
        Ok(command.fd(0, input).fd(1, write).fd(2, errors))
    }

    /// `create`; the result's standard error holds what the runtime said.
    pub fn create(&mut self) -> Outcome<Run> {
        let mut run = self.create_command()?.run()?;
        run.stderr = self.stderr().into_bytes();
        Ok(run)
    }

    pub fn start(&self) -> Outcome<Run> {
        self.verb("start").arg(&self.id).run()
    }

    pub fn kill(&self, signal: &str) -> Outcome<Run> {
        self.verb("kill").arg(&self.id).arg(signal).run()
    }

    pub fn pause(&self) -> Outcome<Run> {
        self.verb("pause").arg(&self.id).run()
    }

    pub fn resume(&self) -> Outcome<Run> {
        self.verb("resume").arg(&self.id).run()
    }

    pub fn delete(&self) -> Outcome<Run> {
        self.verb("delete").arg(&self.id).run()
    }

    pub fn delete_force(&self) -> Outcome<Run> {
        self.verb("delete").arg("--force").arg(&self.id).run()
    }

    /// `exec OPTIONS ID` and the arguments of the process.
    pub fn exec_command(&self, options: &[&str], args: &[&str]) -> Cmd<'c> {
        self.verb("exec").args(options).arg(&self.id).args(args)
    }

    /// `exec` of the guest with these words.
    pub fn exec(&self, words: &[&str]) -> Outcome<Run> {
        self.exec_command(&[], &[&[GUEST], words].concat()).run()
    }

    /// `exec --process FILE` with this process object.
    pub fn exec_process(&self, process: &Value) -> Outcome<Run> {
        let file = self.context.next_io().with_extension("process.json");
        std::fs::write(&file, serde_json::to_vec(process)?)?;
        self.verb("exec").arg("--process").arg(&file).arg(&self.id).run()
    }

    /// A process object for `exec --process` that runs the guest.
    pub fn process(&self, words: &[&str]) -> Value {
        let (key, value) = self.context.marker();
        let args = [&[GUEST], words].concat();
        json!({
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": args,
            "env": ["PATH=/bin", format!("{key}={value}")],
        })
    }

    /// The next line that the container's process prints.
    pub fn line(&mut self) -> Outcome<String> {
        let patience = self.context.patience;
        let stderr = self.stderr.clone();
        let lines = self.lines.as_mut().ok_or("the container was not created with a pipe")?;
        lines.next(patience).map_err(|e| {
            let said = std::fs::read_to_string(stderr).unwrap_or_default();
            e.during(&format!("reading the container's output (stderr: {})", said.trim_end()))
        })
    }

    /// Waits for a line `{"key": …}` of the guest, skipping others.
    pub fn hear(&mut self, key: &str) -> Outcome<Value> {
        loop {
            let line = self.line().map_err(|e| e.during(&format!("waiting for {key:?}")))?;
            if let Ok(mut value) = serde_json::from_str::<Value>(&line)
                && let Some(found) = value.get_mut(key)
            {
                return Ok(found.take());
            }
        }
    }

    /// Everything the container's process prints until its end.
    pub fn output(&mut self) -> Outcome<String> {
        let patience = self.context.patience;
        let lines = self.lines.as_mut().ok_or("the container was not created with a pipe")?;
        Ok(String::from_utf8_lossy(&lines.to_end(patience)?).into_owned())
    }

    /// Waits for the guest's report.
    pub fn report(&mut self) -> Outcome<Report> {
        Ok(Report(self.hear("report")?))
    }

    /// What the container's process and `create` wrote to standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// `state`, parsed.
    pub fn state(&self) -> Outcome<Value> {
        self.verb("state").arg(&self.id).run()?.ok()?.json()
    }

    pub fn status(&self) -> Outcome<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_owned())
    }

    pub fn pid(&self) -> Outcome<i32> {
        let pid = self.state()?["pid"].as_i64().unwrap_or(0) as i32;
        if pid > 0 { Ok(pid) } else { Err("state has no pid".into()) }
    }

    /// Waits until the status is this.
    pub fn wait_status(&self, status: &str) -> Outcome {
        let mut last = String::new();
        eventually(self.context.patience, "", || {
            last = self.status().unwrap_or_else(|e| e.to_string());
            (last == status).then_some(())
        })
        .map_err(|_| Failure::Failed(format!("status did not become {status:?}; it is {last:?}")))
    }

    /// Waits until the container's process `pid` ends; gives its exit code, or 128 and the signal's number.
    pub fn wait_exit(&self, pid: i32) -> Outcome<i32> {
        eventually(self.context.patience, &format!("process {pid} ends"), || children::status(pid))
    }

    /// SIGKILL, wait, delete: the ordinary end.
    pub fn end(mut self) -> Outcome {
        self.kill("KILL")?.ok()?;
        self.wait_status("stopped")?;
        self.delete()?.ok()?;
        self.forgotten = true;
        check_eq!(self.context.state_entries().contains(&self.id), false, "state directory after delete");
        Ok(())
    }

    /// The container does not exist (any more): nothing is removed at the end.
    pub fn forget(&mut self) {
        self.forgotten = true;
    }

    /// Directory of the container's cgroup in a controller's hierarchy, for the path that [`Bundle::container`] chose.
    ///
    /// [`Bundle::container`]: super::Bundle::container
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let path = match (self.context.has_systemd(), self.context.user.load(Ordering::Relaxed)) {
            (false, _) => format!("{}/{}", self.context.cgroup_parent, self.id),
            (true, 0) => format!("system.slice/{}", self.context.unit(&self.id)),
            (true, user) => {
                let manager = format!("user.slice/user-{user}.slice/user@{user}.service");
                format!("{manager}/user.slice/{}", self.context.unit(&self.id))
            }
        };
        self.context.cgroups.path(controller, &path)
    }

    /// Content of a file in the container's cgroup, trimmed.
    pub fn cgroup_file(&self, controller: &str, file: &str) -> Outcome<String> {
        let path = self.cgroup(controller).join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.forgotten || !self.context.root.join(&self.id).exists() {
            return;
        }
        // What is left after this is found by the leak check.
        let _ = self.verb("delete").arg("--force").arg(&self.id).deadline(self.context.patience).run();
    }
}
