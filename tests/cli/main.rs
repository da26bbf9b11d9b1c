//! The command as scripts and people see it: the real program, its text, its JSON, its exit codes.

#[path = "../store_support/mod.rs"]
mod store_support;
#[path = "../support/mod.rs"]
mod support;

mod beside;
mod blobs;
mod collect;
mod config;
mod globals;
mod help;
mod images;
mod leases;
mod printing;
mod pull;
mod remote;
mod repair;
mod room;
mod sandbox;
mod shared;
mod signals;
