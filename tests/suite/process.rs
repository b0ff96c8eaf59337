//! `orlop up` as a process.
