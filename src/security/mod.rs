//! [init] What limits the container's process: capabilities, LSM labels, session keyring, seccomp.

pub mod capabilities;
pub mod keyring;
pub mod label;
pub mod seccomp;
pub mod users;
