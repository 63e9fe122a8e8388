//! [parent] The service manager: jobs that start and stop units, and properties (org.freedesktop.systemd1(5)).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::properties::Property;
use crate::dbus::{Call, Connection, Failure, Message, Value};
use crate::error::{Error, Kind, Result};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const PROPERTY_READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";
const INVALID_ARGS: &str = "org.freedesktop.DBus.Error.InvalidArgs";

/// How long a job may take, as in runc.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call may take that waits for nothing; systemd answers none while it reloads its configuration.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long may be asked what a job hangs in.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Manager {
    bus: Connection,
}

/// A change of a unit that systemd has queued.
#[derive(Debug)]
pub struct Job {
    path: String,
    unit: String,
    deadline: Instant,
}

impl Manager {
    /// That of the system, or of the user's session.
    pub fn connect(is_user: bool) -> Result<Self> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let bus = if is_user { Connection::user(deadline)? } else { Connection::system(deadline)? };
        Ok(Self { bus })
    }

    fn call(&mut self, member: &str, args: Vec<Value>) -> Result<Vec<Value>, Failure> {
        let call = Call { destination: SERVICE, path: PATH, interface: MANAGER, member, args };
        self.bus.call(&call, Instant::now() + CALL_TIMEOUT)
    }

    fn property(&mut self, path: &str, interface: &str, name: &str, timeout: Duration) -> Result<String> {
        let args = vec![interface.into(), name.into()];
        let call = Call { destination: SERVICE, path, interface: PROPERTIES, member: "Get", args };
        let values = self.bus.call(&call, Instant::now() + timeout)?;
        let text = values.first().and_then(|value| value.inner().as_str()).map(String::from);
        text.ok_or_else(|| Error::other(format!("systemd gave no text as {name}")))
    }

    /// The manager's own cgroup, below which those of its units are.
    pub fn control_group(&mut self) -> Result<PathBuf> {
        let path = self.property(PATH, MANAGER, "ControlGroup", CALL_TIMEOUT)?;
        // That of the system is the empty text.
        Ok(if path.is_empty() { "/".into() } else { path.into() })
    }

    /// Begins to start a transient unit; [`Manager::wait`] tells when it is there.
    ///
    /// # Errors
    /// The unit exists, and did not fail; systemd refuses a property.
    pub fn start(&mut self, unit: &str, mut properties: Vec<Property>) -> Result<Job> {
        self.watch_jobs(unit)?;
        let mut is_reset = false;
        loop {
            let list = properties.iter().map(|property| Value::property(&property.name, property.value.clone()));
            let args = vec![
                unit.into(),
                "replace".into(),
                Value::array("(sv)", list),
                // Further units that it would need.
                Value::array("(sa(sv))", []),
            ];
            let failure = match self.call("StartTransientUnit", args) {
                Ok(values) => return Self::job(&values, unit),
                Err(failure) => failure,
            };
            if failure.is(UNIT_EXISTS) && !is_reset {
                // What is left of one that failed goes when that is forgotten.
                self.reset_failed(unit);
                is_reset = true;
                continue;
            }
            if failure.is(UNIT_EXISTS) {
                return Err(Error::config("linux.cgroupsPath", format!("unit {unit} exists already"))
                    .hint("another id or another name; systemctl status tells whose it is"));
            }
            let index = dispensable(&failure, &properties).ok_or_else(|| Error::from(failure))?;
            let property = properties.remove(index);
            log::debug!("systemd does not take {}, the cgroup's file has its value", property.name);
        }
    }

    /// Begins to stop `unit`; `None` if there is none.
    pub fn stop(&mut self, unit: &str) -> Result<Option<Job>> {
        self.watch_jobs(unit)?;
        match self.call("StopUnit", vec![unit.into(), "replace".into()]) {
            Ok(values) => Self::job(&values, unit).map(Some),
            Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The description of `unit`; `None` if there is none.
    pub fn description(&mut self, unit: &str) -> Result<Option<String>> {
        let values = match self.call("GetUnit", vec![unit.into()]) {
            Err(failure) if failure.is(NO_SUCH_UNIT) => return Ok(None),
            other => other?,
        };
        let path = values.first().and_then(Value::as_str).ok_or_else(|| Error::other("systemd named no unit"))?;
        self.property(path, &format!("{SERVICE}.Unit"), "Description", CALL_TIMEOUT).map(Some)
    }

    /// Sends SIGKILL to all processes of `unit`.
    pub fn kill(&mut self, unit: &str) -> Result<()> {
        match self.call("KillUnit", vec![unit.into(), "all".into(), Value::I32(libc::SIGKILL)]) {
            Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Forgets that `unit` failed, so that nothing is left of it.
    pub fn reset_failed(&mut self, unit: &str) {
        if let Err(failure) = self.call("ResetFailedUnit", vec![unit.into()])
            && !failure.is(NO_SUCH_UNIT)
        {
            log::debug!("{}", Error::from(failure));
        }
    }

    /// Moves a process into the cgroup of `unit`, or the one called `below` in it, with the manager's privilege (since systemd 238).
    pub fn attach(&mut self, unit: &str, below: &str, pid: Pid) -> Result<()> {
        let pids = Value::array("u", [Value::U32(pid.as_raw().unsigned_abs())]);
        self.call("AttachProcessesToUnit", vec![unit.into(), below.into(), pids])?;
        Ok(())
    }

    /// Changes properties of `unit` until it ends.
    pub fn set_properties(&mut self, unit: &str, mut properties: Vec<Property>) -> Result<()> {
        while !properties.is_empty() {
            let list = properties.iter().map(|property| Value::property(&property.name, property.value.clone()));
            let args = vec![unit.into(), Value::Bool(true), Value::array("(sv)", list)];
            let Err(failure) = self.call("SetUnitProperties", args) else { break };
            let index = dispensable(&failure, &properties).ok_or_else(|| Error::from(failure))?;
            properties.remove(index);
        }
        Ok(())
    }

    /// Before the job is made: its end may come at once.
    fn watch_jobs(&mut self, unit: &str) -> Result<()> {
        let rule = format!(
            "type='signal',sender='{SERVICE}',path='{PATH}',interface='{MANAGER}',member='JobRemoved',arg2='{unit}'"
        );
        self.bus.add_match(&rule, Instant::now() + CALL_TIMEOUT)
    }

    fn job(values: &[Value], unit: &str) -> Result<Job> {
        let path = values.first().and_then(Value::as_str).ok_or_else(|| Error::other("systemd named no job"))?;
        Ok(Job { path: path.into(), unit: unit.into(), deadline: Instant::now() + JOB_TIMEOUT })
    }

    /// Waits for the end of `job`.
    ///
    /// # Errors
    /// How it ended, if not well; what it hangs in, after [`JOB_TIMEOUT`].
    pub fn wait(&mut self, job: &Job) -> Result<()> {
        match self.bus.wait_for_signal(job.deadline, |signal| result_of(signal, &job.path)) {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(Error::other(format!("systemd's job for unit {} ended with {result:?}", job.unit))
                .hint(format!("journalctl -u {} may tell why", job.unit))),
            Err(error) if error.errno() == Some(Errno::ETIMEDOUT) => Err(self.hangs(job)),
            Err(error) => Err(error),
        }
    }

    fn hangs(&mut self, job: &Job) -> Error {
        let of_job = format!("{SERVICE}.Job");
        let mut ask = |name| self.property(&job.path, &of_job, name, ASK_TIMEOUT).unwrap_or("unknown".into());
        let (kind, state) = (ask("JobType"), ask("State"));
        let number = job.path.rsplit('/').next().unwrap_or_default();
        let cause = format!(
            "job {number} of systemd ({kind} {}) is not done after {} s; its state is {state}",
            job.unit,
            JOB_TIMEOUT.as_secs()
        );
        Error::new(Kind::Other, cause).hint("systemctl list-jobs shows what it waits for")
    }
}

/// How the job at `path` ended, if that is what `signal` tells.
fn result_of(signal: &Message, path: &str) -> Option<String> {
    let [_, job, _, result] = signal.body.as_slice() else { return None };
    let is_it = signal.member == "JobRemoved" && job.as_str() == Some(path);
    result.as_str().filter(|_| is_it).map(String::from)
}

/// Which of `properties` systemd refuses and can be left out: one that it does not know, because it is older, and whose value is
/// in the cgroup's files.
fn dispensable(failure: &Failure, properties: &[Property]) -> Option<usize> {
    let Failure::Refused { error, .. } = failure else { return None };
    let said = error.to_string();
    let words: Vec<&str> = said.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is_named = |name: &str| words.contains(&name);
    let is_idle = |property: &Property| property.name == "CPUWeight" && property.value == Value::U64(0);
    properties.iter().position(|property| {
        let is_unknown = failure.is(PROPERTY_READ_ONLY) && is_named(&property.name);
        // Before 252 the weight was a number from 1 on.
        let is_too_new = failure.is(INVALID_ARGS) && is_idle(property);
        property.is_in_files && (is_unknown || is_too_new)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, text: &str) -> Failure {
        Failure::Refused { name: name.into(), error: Error::other(text.to_owned()) }
    }

    #[test]
    fn only_what_the_files_say_too_is_left_out() {
        let in_files = |name: &str, value| Property { is_in_files: true, ..Property::new(name, value) };
        let properties = [
            Property::new("Description", "x".into()),
            Property::new("CollectMode", "x".into()),
            in_files("MemoryMax", Value::U64(1)),
            in_files("MemoryZSwapMax", Value::U64(1)),
            in_files("CPUWeight", Value::U64(0)),
        ];
        let unknown = |name: &str| format!("Cannot set property {name}, or unknown property.");
        for (error, text, expected) in [
            (PROPERTY_READ_ONLY, unknown("MemoryZSwapMax"), Some(3)),
            (PROPERTY_READ_ONLY, unknown("MemoryMax"), Some(2)),
            (PROPERTY_READ_ONLY, unknown("CollectMode"), None),
            (PROPERTY_READ_ONLY, unknown("Memory"), None),
            (INVALID_ARGS, "Value specified in CPUWeight is out of range".into(), Some(4)),
            (UNIT_EXISTS, "Unit MemoryMax exists".into(), None),
        ] {
            assert_eq!(dispensable(&refused(error, &text), &properties), expected, "{text}");
        }
        assert_eq!(dispensable(&Failure::Failed(Errno::ETIMEDOUT.into()), &properties), None);
    }

    #[test]
    fn a_job_is_told_by_its_path() {
        let body = |path: &str| vec![Value::U32(7), Value::Path(path.into()), "a.scope".into(), "done".into()];
        let signal = |member: &str, body| Message { member: member.into(), body, ..Message::default() };
        for (message, expected) in [
            (signal("JobRemoved", body("/j/7")), Some("done".to_owned())),
            (signal("JobRemoved", body("/j/8")), None),
            (signal("JobNew", body("/j/7")), None),
            (signal("JobRemoved", vec![]), None),
        ] {
            assert_eq!(result_of(&message, "/j/7"), expected);
        }
    }
}
