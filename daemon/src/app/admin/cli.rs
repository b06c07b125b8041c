//! The command line of `quaild admin`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  quaild admin status
  quaild admin accounts create ada bob
  quaild admin accounts reset-password ada --generate
  quaild admin accounts disable eve
  quaild --data /var/lib/quail admin devices list ada --json

The daemon has to be running; its own user and root may ask it. QUAIL_ADMIN_SOCKET names another socket.";

/// Administer the daemon that runs on this machine
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub(in crate::app) struct Admin {
    /// Print JSON: one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: AdminCommand,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum AdminCommand {
    /// Accounts: list, create, disable, enable, reset passwords
    #[command(subcommand)]
    Accounts(Accounts),
    /// The devices of an account
    #[command(subcommand)]
    Devices(Devices),
    /// Codes that new accounts need where `sign_up` is "invite"
    #[command(subcommand)]
    Invites(Invites),
    /// Events that could not be archived
    #[command(subcommand)]
    Dead(Dead),
    /// Show how the daemon is
    Status,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Accounts {
    /// List accounts by handle
    #[command(after_help = "\
Examples:
  quaild admin accounts list
  quaild admin accounts list --after bob --limit 100 --json")]
    List {
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Begin behind this handle
        #[arg(long, value_name = "HANDLE", default_value = "", hide_default_value = true)]
        after: String,
    },
    /// Create accounts for others. They have no password: nobody can log in until one is set with reset-password
    #[command(after_help = "\
Examples:
  quaild admin accounts create ada bob
  quaild admin accounts create --handles-from handles.txt
  quaild admin accounts create bot --session --json > bot.json

Handles go in batches of 500: a batch with a bad handle is not created, the batches before it are.")]
    Create {
        /// Handles of 3 to 32 characters: a-z, 0-9, underscores and dots
        #[arg(value_name = "HANDLE", required_unless_present = "handles_from")]
        handles: Vec<String>,
        /// Read more handles from a file, one per line; - is stdin
        #[arg(long, value_name = "FILE")]
        handles_from: Option<PathBuf>,
        /// Give each a device that is logged in, and print its credentials, token included: they are shown only now
        #[arg(long)]
        session: bool,
    },
    /// Disable an account: its sessions end, it cannot log in. Messages to it wait until it is enabled and logs in
    #[command(after_help = "\
Examples:
  quaild admin accounts disable eve

All its devices are logged out before the command says done. It is told what a wrong password is told.")]
    Disable {
        /// The account
        handle: String,
    },
    /// Let a disabled account log in again. Its devices were logged out and have to log in anew
    #[command(after_help = "Examples:\n  quaild admin accounts enable eve")]
    Enable {
        /// The account
        handle: String,
    },
    /// Give an account another password, read from a prompt or from the first line of stdin
    #[command(after_help = "\
Examples:
  quaild admin accounts reset-password ada
  quaild admin accounts reset-password ada --generate
  quaild admin accounts reset-password ada --keep-sessions < password-file")]
    ResetPassword {
        /// The account
        handle: String,
        /// Have the daemon draw a password, and print it: it is shown only now
        #[arg(long)]
        generate: bool,
        /// Leave its devices logged in
        #[arg(long)]
        keep_sessions: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Devices {
    /// List the devices of an account
    #[command(after_help = "Examples:\n  quaild admin devices list ada")]
    List {
        /// The account
        handle: String,
    },
    /// Log a device out
    #[command(after_help = "\
Examples:
  quaild admin devices unlink ada 0f8fad5b-d9cb-469f-a165-70867728950e")]
    Unlink {
        /// The account
        handle: String,
        /// The device's id, from the list
        device: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Invites {
    /// Create invites, each good for one account, and print them: they are shown only now
    #[command(after_help = "\
Examples:
  quaild admin invites create
  quaild --data /var/lib/quail admin invites create --count 10 --json

With --json it prints one object: {\"invites\": [\"...\"]}")]
    Create {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
    },
    /// List invites by id; their codes are kept nowhere
    #[command(after_help = "Examples:\n  quaild admin invites list")]
    List,
    /// Take an invite back that nobody has used
    #[command(after_help = "\
Examples:
  quaild admin invites revoke 5d41402abc4b2a76
  quaild admin invites revoke 6789ABCDEFGHJKMNPQRSTVWXYZ")]
    Revoke {
        /// Its code, or its id from the list
        invite: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Dead {
    /// List them by number, with the reason; what they say is not shown
    #[command(after_help = "Examples:\n  quaild admin dead list --json")]
    List,
    /// Try to archive them again; what succeeds is not in the list any more
    #[command(after_help = "Examples:\n  quaild admin dead retry\n  quaild admin dead retry 7")]
    Retry {
        /// Only this one
        number: Option<u64>,
    },
    /// Drop one for good: it will not be in anybody's history
    #[command(after_help = "Examples:\n  quaild admin dead drop 7")]
    Drop {
        /// Its number from the list
        number: u64,
    },
}
