//! The systemd driver: a transient unit for each container. What is decided before systemd is asked.

pub mod annotations;
pub mod gvariant;
pub mod properties;
pub mod unit;
