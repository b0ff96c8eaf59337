//! One worker a pod: from what the API says is to run, to what the runtime is told and what the API is told back.

mod waker;

pub use self::waker::Waker;
