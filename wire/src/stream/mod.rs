//! Streams over one connection: what `exec`, `attach` and `port-forward` speak.
//!
//! - [`io`]: a runtime's connections as something to read and write, and the other way round;
//! - [`mux`]: many streams over one cable, with bounded buffers, half-close and reset, whatever the cable's framing is;
//! - [`port_forward`]: connections to the ports of a pod, on either side;
//! - [`remote_command`]: `exec` and `attach`, on either side;
//! - [`spdy`]: SPDY/3.1 as Kubernetes' clients and container runtimes speak it;
//! - [`websocket`]: channels in a WebSocket, and tunnels through one.

pub mod io;
pub mod mux;
pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod websocket;
