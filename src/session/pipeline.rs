//! Keeps the engine's promise "durable first": outputs wait here until the batch in front of them is durable.
//!
//! Several batches may be on their way to the disk at the same time; outputs leave in the order in which they came.

use std::collections::VecDeque;

use crate::whatsapp::model::Output;

/// Batches on their way to the disk before the session takes nothing more in.
const MAX_IN_FLIGHT: usize = 128;

/// What waits for the disk.
#[derive(Default)]
pub(super) struct Pipeline {
    /// Numbers of the batches that are not known to be durable, ascending.
    in_flight: VecDeque<u64>,
    /// Outputs with the number of the batch they wait for.
    held: VecDeque<(u64, Output)>,
}

impl Pipeline {
    /// A batch was handed to the store.
    pub(super) fn submitted(&mut self, number: u64) {
        self.in_flight.push_back(number);
    }

    /// Everything up to this batch is durable.
    pub(super) fn durable(&mut self, number: u64) {
        while self.in_flight.front().is_some_and(|first| *first <= number) {
            self.in_flight.pop_front();
        }
    }

    /// Gives the output back when nothing is in front of it, else holds it.
    pub(super) fn pass(&mut self, output: Output) -> Option<Output> {
        match self.in_flight.back() {
            None if self.held.is_empty() => Some(output),
            None => {
                let behind = self.held.back().map_or(0, |(number, _)| *number);
                self.held.push_back((behind, output));
                None
            }
            Some(last) => {
                self.held.push_back((*last, output));
                None
            }
        }
    }

    /// The next output that nothing holds any more.
    pub(super) fn next(&mut self) -> Option<Output> {
        let (waits_for, _) = self.held.front()?;
        if self.in_flight.front().is_some_and(|first| first <= waits_for) {
            return None;
        }
        self.held.pop_front().map(|(_, output)| output)
    }

    /// The socket is gone: what was meant for it is dropped.
    pub(super) fn drop_transmits(&mut self) {
        self.held.retain(|(_, output)| !matches!(output, Output::Transmit(_)));
    }

    /// Whether the engine has decided already how this connection ends.
    pub(super) fn ends_connection(&self) -> bool {
        self.held.iter().any(|(_, output)| matches!(output, Output::Disconnect(_)))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.held.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight.len() >= MAX_IN_FLIGHT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::model::DisconnectReason;

    fn transmit(byte: u8) -> Output {
        Output::Transmit(vec![byte])
    }

    fn byte(output: Option<Output>) -> Option<u8> {
        match output? {
            Output::Transmit(bytes) => bytes.first().copied(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn with_nothing_in_front_an_output_passes_at_once() {
        assert_eq!(byte(Pipeline::default().pass(transmit(1))), Some(1));
    }

    #[test]
    fn outputs_wait_for_the_batch_in_front_of_them_and_keep_their_order() {
        let mut pipeline = Pipeline::default();
        pipeline.submitted(7);
        assert!(pipeline.pass(transmit(1)).is_none());
        pipeline.submitted(8);
        assert!(pipeline.pass(transmit(2)).is_none());
        assert!(pipeline.next().is_none());
        pipeline.durable(7);
        assert_eq!(byte(pipeline.next()), Some(1));
        assert!(pipeline.next().is_none());
        pipeline.durable(8);
        // A later output must not overtake one that is ready but not taken out yet.
        assert!(pipeline.pass(transmit(3)).is_none());
        assert_eq!((byte(pipeline.next()), byte(pipeline.next())), (Some(2), Some(3)));
        assert!(pipeline.is_idle());
    }

    #[test]
    fn what_was_meant_for_a_lost_socket_is_dropped_and_the_decision_to_end_is_kept() {
        let mut pipeline = Pipeline::default();
        pipeline.submitted(0);
        drop(pipeline.pass(transmit(1)));
        assert!(!pipeline.ends_connection());
        drop(pipeline.pass(Output::Disconnect(DisconnectReason::Requested)));
        pipeline.drop_transmits();
        assert!(pipeline.ends_connection());
        pipeline.durable(0);
        assert!(matches!(pipeline.next(), Some(Output::Disconnect(_))));
    }

    #[test]
    fn too_many_batches_in_flight_are_noticed() {
        let mut pipeline = Pipeline::default();
        (0..128).for_each(|number| pipeline.submitted(number));
        assert!(pipeline.is_full());
        pipeline.durable(0);
        assert!(!pipeline.is_full());
    }
}
