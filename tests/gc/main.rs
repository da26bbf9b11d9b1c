//! The collector, through the public API and on a real disk.

mod images;

mod leases;
mod marking;
mod order;
mod parts;
mod races;
mod roots;
mod stress;
mod sweeping;
