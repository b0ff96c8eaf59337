//! Commands that run to their end.

use orlop_core::runtime::{ContainerId, ExecOutput, OUTPUT_LIMIT, RuntimeError};

use super::CriRuntime;
use crate::messages as cri;
use crate::refusal::{About, refusal};

/// Two outputs, each as large as it may be, and a little around them.
const OUTPUTS_LIMIT: usize = 2 * OUTPUT_LIMIT + (64 << 10);

impl CriRuntime {
    pub(super) async fn run_command(
        &self,
        id: &ContainerId,
        command: &[String],
    ) -> Result<ExecOutput, RuntimeError> {
        if command.is_empty() {
            return Err(RuntimeError::InvalidRequest("no command".to_owned()));
        }
        let request = cri::ExecSyncRequest {
            container_id: id.as_str().to_owned(),
            cmd: command.to_vec(),
            // Dropping the future cancels the call, upon which the engine kills the command.
            timeout: 0,
        };
        let answer = self.engine.call_patiently(request, OUTPUTS_LIMIT).await;
        let answer = answer.map_err(|status| {
            refusal::<cri::ExecSyncRequest>(status, About::Container(id.as_str()))
        })?;
        let kept = |output: bytes::Bytes| {
            let mut output = Vec::from(output);
            output.truncate(OUTPUT_LIMIT);
            output
        };
        Ok(ExecOutput {
            stdout: kept(answer.stdout),
            stderr: kept(answer.stderr),
            code: answer.exit_code,
        })
    }
}
