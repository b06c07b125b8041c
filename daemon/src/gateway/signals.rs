//! Signals: form and rate, then on to the core, if there is room.
//!
//! Nobody waits for a signal and nobody is told what became of it. The directory is not asked: whom the core does not know has
//! no feed attached.

use prost::Message;
use quail_core::ports::directory::SessionFacts;
use quail_core::{Command, SignalCommand};
use quail_protocol::id::AccountId;
use quail_protocol::limits::SIGNAL_BYTES_MAX;
use quail_protocol::v1::{self, Reason, TypingState, signal::Body};

use super::Gateway;

impl Gateway {
    /// Passes a signal on, if there is room for it.
    ///
    /// # Errors
    /// `MALFORMED`; `RATE_LIMITED`, which the peer is not told, but which counts as a refusal.
    pub fn signal(&self, session: &SessionFacts, signal: &v1::Signal) -> Result<(), Reason> {
        let counted = match valid_signal(session, signal) {
            Ok(command) => self.rates.signal(session.device).map(|()| command).map_err(|limited| {
                // Told to nobody; only counted.
                limited.refuse(&self.metrics).reason()
            }),
            Err(reason) => Err(reason),
        };
        self.count("signal", counted.as_ref().map_or_else(|reason| reason.meta().name, |_| "OK"), 1);
        if let Some(command) = counted?
            && !self.sequencer.try_submit(Command::Signal(command))
        {
            self.metrics.signals_dropped.inc();
        }
        Ok(())
    }
}

/// Returns the command of a signal; `None` for what a later version may say.
fn valid_signal(session: &SessionFacts, signal: &v1::Signal) -> Result<Option<SignalCommand>, Reason> {
    if signal.encoded_len() > SIGNAL_BYTES_MAX {
        return Err(Reason::Malformed);
    }
    let to = AccountId::try_from(&*signal.account).map_err(|_| Reason::Malformed)?;
    let is_known = match &signal.body {
        Some(Body::Typing(typing)) => matches!(typing.state(), TypingState::Started | TypingState::Stopped),
        // That is for the server alone to say.
        Some(Body::Unread(_)) | None => false,
    };
    let (account, device, counter) = (session.account, session.device, signal.counter);
    let body = signal.body.filter(|_| is_known);
    Ok(body.map(|body| SignalCommand { account, device, to, counter, body }))
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::DeviceId;

    use super::*;

    #[test]
    fn what_is_no_signal_is_refused_and_what_is_unknown_is_dropped() {
        let session =
            SessionFacts { account: AccountId([1; 16]), device: DeviceId([1; 16]), handle: String::new() };
        let typing = |state| Some(Body::Typing(v1::Typing { state }));
        let signal = |to: usize, device: usize, body| v1::Signal {
            account: vec![2; to].into(),
            device: vec![9; device].into(),
            counter: 7,
            body,
        };
        let passed = valid_signal(&session, &signal(16, 16, typing(1))).unwrap().unwrap();
        assert_eq!(
            (passed.device, passed.to),
            (session.device, AccountId([2; 16])),
            "the device is the session's"
        );
        assert_eq!(valid_signal(&session, &signal(15, 0, typing(1))), Err(Reason::Malformed));
        assert_eq!(valid_signal(&session, &signal(16, SIGNAL_BYTES_MAX, typing(1))), Err(Reason::Malformed));
        assert_eq!(valid_signal(&session, &signal(16, 0, typing(9))), Ok(None));
        assert_eq!(valid_signal(&session, &signal(16, 0, typing(0))), Ok(None));
        assert_eq!(valid_signal(&session, &signal(16, 0, None)), Ok(None));
        let unread = Some(Body::Unread(v1::Unread { count: 7 }));
        assert_eq!(valid_signal(&session, &signal(16, 0, unread)), Ok(None), "only the server says so");
    }
}
