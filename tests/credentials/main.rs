//! Credentials, as the command takes them from files, helpers and the terminal, and keeps them.
#![cfg(feature = "cli")]

mod files;
mod helpers;
mod home;
mod logins;
mod origins;
mod tokens;

#[path = "../support/mod.rs"]
mod support;
