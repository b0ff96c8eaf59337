//! Admission: a say in what is written.
