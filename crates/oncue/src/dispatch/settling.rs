//! Sending what became of events to the transport, in batches; and what goes on once that is durable.

use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    DispatchError, Dispatcher,
    run::{self, Run, RunId},
};
use crate::transport::{Action, SettleError, Settlement};

/// Settle batches on their way, at most: more wait and grow, so that one sync covers more of them.
const SETTLING: usize = 2;

/// A settle batch is complete when it has as many bytes of effects and dead letters: with the largest settlement on top
/// it still fits one frame of the log.
const SETTLE_BYTES: usize = 2 * 1024 * 1024;

const _: () = assert!(SETTLE_BYTES + run::MAX_EFFECT_BYTES < 15 * 1024 * 1024, "a settle batch fits one frame");

/// Whose settlement it is.
pub(super) enum Settles {
    Run(RunId),
    /// Of an event that was through at once.
    AtOnce {
        /// That of its lane, if it holds one.
        key: Option<u64>,
        bytes: usize,
    },
}

/// A settle batch on its way, with whose settlements they are.
pub(super) type Settling = BoxFuture<'static, (Vec<Settles>, Result<(), SettleError>)>;

impl Dispatcher {
    /// Puts a settlement into the next batch.
    pub(super) fn send(&mut self, id: RunId, settlement: Settlement) {
        if let Some(run) = self.runs.get_mut(id) {
            run.settling += 1;
            self.outbox.push(settlement);
            self.outbox_of.push(Settles::Run(id));
        }
    }

    /// Sends what is to be settled on its way.
    pub(super) fn flush(&mut self) {
        // One after the other, where later events of a key may be in the next one: they are not durable before it.
        let at_once = if self.lanes.is_pipelined() { 1 } else { SETTLING };
        if self.outbox.is_empty() || self.settling.len() >= at_once {
            return;
        }
        let mut bytes = 0;
        let fits = |(of, settlement): &(&Settles, &Settlement)| {
            let before = bytes;
            bytes += settlement.written.as_ref().map_or(0, |written| written.bytes());
            if let (Settles::Run(id), Action::DeadLetter) = (of, settlement.action) {
                bytes += self.runs.get(*id).map_or(0, Run::bytes);
            }
            before < SETTLE_BYTES
        };
        let count = self.outbox_of.iter().zip(&self.outbox).take_while(fits).count();
        let (of, batch) = (take_first(&mut self.outbox_of, count), take_first(&mut self.outbox, count));
        let settle = self.consumer.settle(batch);
        self.settling.push(settle.map(|settled| (of, settled)).boxed());
    }

    /// A settle batch is durable: ended runs leave, and their keys go on. Where a lease was lost, what waits behind them is
    /// another process's: it is given back, and handed out again if it is not.
    pub(super) fn settled(&mut self, of: Vec<Settles>, settled: Result<(), SettleError>) -> Result<(), DispatchError> {
        let is_lost = match settled {
            Ok(()) => false,
            Err(SettleError::LeaseLost) => true,
            Err(error) => return Err(DispatchError::Settle { handler: self.name(), error }),
        };
        for settles in of {
            let key = match settles {
                Settles::AtOnce { key, bytes } => {
                    self.at_once -= 1;
                    self.bytes -= bytes;
                    key
                }
                Settles::Run(id) => match self.run_settled(id) {
                    Some(key) => key,
                    None => continue,
                },
            };
            if is_lost {
                self.give_back_waiting(key);
            }
            self.leave(key);
        }
        Ok(())
    }

    /// What waits in a lane goes back to the transport. It is rare, and kept apart from what each event takes.
    #[cold]
    #[inline(never)]
    fn give_back_waiting(&mut self, key: Option<u64>) {
        for waiting in self.lanes.park(key) {
            self.give_back(waiting);
        }
    }

    /// A settlement of the run is durable: if that ends it, and it held a lane, its key.
    fn run_settled(&mut self, id: RunId) -> Option<Option<u64>> {
        let run = self.runs.get_mut(id)?;
        run.settling -= 1;
        run.tell();
        if !run.ended || run.settling > 0 {
            return None;
        }
        let run = self.runs.try_remove(id)?;
        self.bytes -= run.bytes();
        (!run.given_back).then_some(run.key)
    }
}

/// The first `count`, without moving them if they are all.
fn take_first<T>(list: &mut Vec<T>, count: usize) -> Vec<T> {
    // As much room as was needed now.
    let mut rest = Vec::with_capacity(list.len());
    rest.extend(list.drain(count..));
    std::mem::replace(list, rest)
}
