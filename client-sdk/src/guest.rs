//! A connection without a session: to sign up, to log in, to ping.

use quail_protocol::address::Address;

use crate::hello::{self, Welcome};
use crate::link::Link;
use crate::transport::Transport;
use crate::{Error, Options};

/// A connection without a session: for what must be done before there is one.
///
/// It does not reconnect, and the server closes it after 10 s without a session. Dropping it closes it.
///
/// ```no_run
/// # use quail_client::{Address, Error, Guest, Options};
/// # async fn example(address: &Address) -> Result<(), Error> {
/// let guest = Guest::connect(address, Options::default()).await?;
/// let credentials = guest.log_in("ada", "correct horse battery staple").await?;
/// guest.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Guest {
    link: Link,
    welcome: Welcome,
    options: Options,
}

impl Guest {
    /// Connects to the server of an address.
    ///
    /// # Errors
    /// Finally [`Error::WrongPin`], [`Error::Certificate`], [`Error::NotQuail`], [`Error::Version`]; temporarily
    /// [`Error::Bind`], [`Error::UnknownHost`], [`Error::Unreachable`], [`Error::ConnectionRefused`],
    /// [`Error::ConnectionLost`], and [`Error::Refused`] with the server's reason.
    pub async fn connect(address: &Address, options: Options) -> Result<Self, Error> {
        let link = Transport::new(address, &options).await?.handshake().await?;
        let waited = options.connect_timeout;
        let hello = async { hello::write(&link, &options.client_name, None).await?.answer().await };
        let welcome = crate::api::in_time("hello", waited, hello).await?;
        Ok(Self { link, welcome, options })
    }

    /// Closes the connection and lets the packet that says so leave; takes at most a tenth of a second.
    pub async fn close(self) {
        self.link.close().await;
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }
}
