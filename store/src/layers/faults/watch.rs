//! Watches that break.

use futures::StreamExt;
use futures::future::{Either, select};
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{StoreError, WatchItem, WatchStream};

use super::control::{Cut, FaultControl, ItemFate};
use crate::layers::late::Late;

/// Lets a watch break, be late and fall silent.
pub(super) fn disturb(control: &FaultControl, stream: WatchStream, from: Revision) -> WatchStream {
    let control = control.clone();
    let delays = control.clone();
    let stream = Late::new(stream, control.env().clone(), move |_: &Env| {
        delays.item_delay()
    });
    let broken = || StoreError::Unavailable("injected fault: the watch broke".to_owned());
    let stream = futures::stream::unfold(
        Some((stream, Revision(from.0.saturating_sub(1)))),
        move |watching| {
            let control = control.clone();
            async move {
                let (mut stream, at) = watching?;
                let item = loop {
                    match control.link() {
                        (Some(Cut::Refuse), _) => {
                            control.count(|counts| counts.watches_ended += 1);
                            return Some((Err(broken()), None));
                        }
                        (Some(Cut::Silence), changed) => changed.wait().await,
                        (None, changed) => {
                            let changed = std::pin::pin!(changed.wait());
                            match select(changed, stream.next()).await {
                                Either::Left(_) => {}
                                Either::Right((item, _)) => break item?,
                            }
                        }
                    }
                };
                let Ok(item) = item else {
                    return Some((item, None));
                };
                match control.item_fate() {
                    ItemFate::Fine => {
                        let reached = match &item {
                            WatchItem::Progress(at) => *at,
                            WatchItem::Changes(changes) => {
                                changes.last().map_or(at, |change| change.revision())
                            }
                        };
                        Some((Ok(item), Some((stream, reached))))
                    }
                    ItemFate::Broken => Some((Err(broken()), None)),
                    ItemFate::Lagged => Some((Err(StoreError::Lagged { at }), None)),
                    ItemFate::Ended => None,
                }
            }
        },
    );
    Box::pin(stream)
}
