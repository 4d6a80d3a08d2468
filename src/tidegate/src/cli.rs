//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Tidegate, a multi-protocol IoT gateway. Without a command it runs, with ./etc/tidegate.toml and data in ./data.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "./etc/tidegate.toml")]
    pub(crate) config: PathBuf,
    /// Folder of the node's data, in place of `node.data`.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do; `run` if nothing is said.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway until SIGTERM or SIGINT.
    Run,
    /// Report all mistakes in the configuration and the files it names.
    Check,
    /// Add a user to a password file or change its password.
    Passwd(Passwd),
    /// Pre-shared keys of devices, in the file that `auth.psk` names.
    Psk {
        /// The file, in place of `auth.psk`; made if it does not exist.
        #[arg(long, global = true, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(subcommand)]
        command: Psk,
    },
    /// Clients with a session.
    Clients {
        #[command(subcommand)]
        command: Clients,
    },
    /// CoAP devices.
    Coap {
        #[command(subcommand)]
        command: Coap,
    },
    /// Topics with a retained message.
    Topics {
        /// Those that this filter matches.
        #[arg(default_value = "#")]
        filter: String,
    },
    /// Subscriptions.
    Subscriptions {
        /// Of this client alone.
        client: Option<String>,
    },
    /// Publish a message.
    Pub(Publish),
    /// Subscribe and print what comes, `TOPIC PAYLOAD` a line, until interrupted.
    Sub {
        filter: String,
        /// Highest quality of service.
        #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// End after this many messages.
        #[arg(short = 'n', long)]
        count: Option<u64>,
    },
    /// Print every packet of one client, both ways, until interrupted.
    Trace { client: String },
    /// Who is kept out.
    Bans {
        #[command(subcommand)]
        command: Bans,
    },
    /// Codecs: device languages, those that are built in and those in the folder `codecs.folder`.
    Codec {
        #[command(subcommand)]
        command: Codec,
    },
    /// What outlives the process; works with and without a running gateway.
    Store {
        #[command(subcommand)]
        command: Stored,
    },
    /// Run scripts: what the gateway starts itself, and speaks with over standard input and output.
    #[command(hide = true)]
    ScriptWorker,
    /// Print the version.
    Version,
}

/// See [`Command::Passwd`].
#[derive(Debug, Args)]
pub(crate) struct Passwd {
    /// The password file; made if it does not exist.
    pub(crate) file: PathBuf,
    /// User name.
    pub(crate) user: String,
    /// Remove the user.
    #[arg(long)]
    pub(crate) delete: bool,
    /// Read the password from the first line of standard input; without it the terminal is asked.
    #[arg(long, conflicts_with = "delete")]
    pub(crate) stdin: bool,
    /// Keep no SCRAM-SHA-256 keys: the user cannot use enhanced authentication.
    #[arg(long, conflicts_with = "delete")]
    pub(crate) no_scram: bool,
}

/// See [`Command::Psk`].
#[derive(Debug, Subcommand)]
pub(crate) enum Psk {
    /// Add a device.
    Add {
        /// What the device says it is, such as urn:imei:490154203237518.
        identity: String,
        /// The client id that it comes in as.
        #[arg(long, value_name = "ID")]
        client: String,
        /// The user whose rights it has.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Its key, 1 to 64 bytes in hexadecimal; `-` reads it from the first line of standard input, where `ps` does not
        /// show it.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// Make a key of 16 bytes and print it; done without `--key` too.
        #[arg(long, conflicts_with = "key")]
        generate: bool,
    },
    /// List them without their keys.
    List,
    /// Give a device a new key.
    Rotate {
        identity: String,
        /// The new key in hexadecimal, `-` from standard input; without it one is made and printed.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// How long the old key is valid beside the new one; `0 s` is not at all.
        #[arg(long, value_name = "TIME", default_value = "7 d")]
        keep: String,
    },
    /// Remove a device.
    Remove { identity: String },
}

/// See [`Command::Clients`].
#[derive(Debug, Subcommand)]
pub(crate) enum Clients {
    /// List them, at most 10,000.
    List {
        /// Those whose client id holds this.
        #[arg(default_value = "")]
        part: String,
    },
    /// Show one with all that is known of it.
    Show { client: String },
    /// End a client's connection; without one, its session.
    Kick { client: String },
}

/// See [`Command::Coap`].
#[derive(Debug, Subcommand)]
pub(crate) enum Coap {
    /// Send a request to the server that a device runs itself, and print its answer; fails unless the answer is 2.xx.
    Request(CoapRequest),
}

/// See [`Coap::Request`].
#[derive(Debug, Args)]
pub(crate) struct CoapRequest {
    /// Client id of the device.
    pub(crate) client: String,
    /// GET, POST, PUT, DELETE, FETCH, PATCH or iPATCH.
    pub(crate) method: String,
    /// Path of the resource, such as /sensors/temperature.
    pub(crate) path: String,
    /// Add a query; can be given several times.
    #[arg(long, value_name = "K=V")]
    pub(crate) query: Vec<String>,
    /// Content-Format of the payload by its number, such as 50 for JSON.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) format: Option<u16>,
    /// Content-Format that the answer is to have.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) accept: Option<u16>,
    /// Payload as text; `-` reads standard input.
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) payload: Option<String>,
    /// File whose contents are the payload.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Longest wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "10 s")]
    pub(crate) timeout: String,
}

/// See [`Command::Codec`].
#[derive(Debug, Subcommand)]
pub(crate) enum Codec {
    /// List those that are built in; works without a running gateway, as `show` and `try` do.
    List,
    /// Show what one makes of its own samples.
    Show { name: String },
    /// Decode bytes frame by frame; fails if any of them are wrong, or if none are a whole frame.
    Try(Box<Try>),
    /// Play the examples that stand beside scripts and modules, NAME.yaml or NAME-codec.yaml; fails if any of them fails.
    Test {
        /// Folders, codecs (.js, .wasm) or files of examples.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Versions of a codec that is in the folder, or all such codecs; with what is wrong with files that were not taken.
    Versions { name: Option<String> },
    /// Read a codec's files again now, or those of all; fails if they are not taken.
    Reload { name: Option<String> },
    /// Have a share of the devices try a version first: the given one, the one that is being tried, and each new one.
    Canary {
        name: String,
        /// How many of a hundred devices; 0 ends the trial, and new versions are for all at once.
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
        share: u8,
        /// A version that is kept.
        #[arg(long)]
        version: Option<u32>,
    },
    /// Use what is being tried for all devices.
    Promote { name: String },
    /// End the trial; without one, go back to the version before.
    Rollback { name: String },
    /// The last calls of a script that failed: input and error.
    Errors { name: String },
}

/// See [`Codec::Try`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(false))]
pub(crate) struct Try {
    /// Name of a codec, or a file: a script (.js) or a module (.wasm).
    pub(crate) name: String,
    /// Bytes in hexadecimal, also as `0x01, 0x02` or `01:02`; `-` reads standard input, `@FILE` a file.
    #[arg(long, group = "source")]
    pub(crate) hex: Option<String>,
    /// File of bytes as they are.
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) file: Option<PathBuf>,
    /// Capture of tcpdump or Wireshark (pcap or pcapng): the TCP streams and UDP datagrams in it.
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) pcap: Option<PathBuf>,
    /// Wait for devices on this address, show and answer what they send, until interrupted.
    #[arg(long, value_name = "ADDRESS", group = "source")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// The server's port in the capture; needed if it has streams to several.
    #[arg(long, requires = "pcap")]
    pub(crate) port: Option<u16>,
    /// Listen on UDP; each line of `--hex` is a datagram.
    #[arg(long, conflicts_with_all = ["pcap", "file"])]
    pub(crate) udp: bool,
    /// End when the first device has gone.
    #[arg(long, requires = "listen")]
    pub(crate) once: bool,
    /// Where frames begin and end, for codecs that do not say it themselves: keys of a listener's section `framing`.
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) framing: Option<String>,
    /// Most bytes of a frame.
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    pub(crate) max_frame: usize,
    /// The device, if none logs in.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Show the frame of this command too, as it would be after the bytes above; can be given several times.
    #[arg(long, value_name = "KIND=VALUE", conflicts_with_all = ["pcap", "listen"])]
    pub(crate) down: Vec<String>,
}

/// See [`Command::Store`].
#[derive(Debug, Subcommand)]
pub(crate) enum Stored {
    /// Figures.
    Stats,
    /// Read every record; fails if any is damaged.
    Check,
    /// Copy all records, as they are at this moment, into a folder that can then be given as `--data`; not the versions of
    /// codecs and not the key of DTLS associations, which are files beside them.
    Backup { folder: PathBuf },
}

/// See [`Command::Pub`].
#[derive(Debug, Args)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    /// Payload as text; `-` reads standard input.
    pub(crate) payload: String,
    /// Quality of service.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Keep it as the topic's retained message.
    #[arg(short, long)]
    pub(crate) retain: bool,
}

/// See [`Command::Bans`].
#[derive(Debug, Subcommand)]
pub(crate) enum Bans {
    /// List them.
    List,
    /// Keep somebody out; a client id or user that is connected is disconnected.
    Add {
        #[command(flatten)]
        who: Banned,
        /// How long, such as `10 min`; without it until it is removed or the gateway ends.
        #[arg(long = "for", value_name = "TIME")]
        duration: Option<String>,
    },
    /// Let somebody in again.
    Remove {
        #[command(flatten)]
        who: Banned,
    },
}

/// Whom a ban concerns.
#[derive(Debug, Args)]
pub(crate) struct Banned {
    /// What VALUE is.
    #[arg(value_parser = ["client_id", "username", "address"])]
    pub(crate) kind: String,
    /// Client id, user name, address or network such as 10.0.0.0/8.
    pub(crate) value: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["tidegate"]).unwrap().command.is_none());
        assert!(Cli::try_parse_from(["tidegate", "pub", "a", "b", "-q", "3"]).is_err());
        let request = ["tidegate", "coap", "request", "dev", "GET", "/t"];
        assert!(Cli::try_parse_from(request).is_ok());
        assert!(Cli::try_parse_from(request.iter().chain(&["--payload", "x", "--file", "y"])).is_err());
        let cli = Cli::try_parse_from(["tidegate", "bans", "add", "address", "10.0.0.1", "--for", "5 min"])
            .unwrap();
        assert!(matches!(cli.command, Some(Command::Bans { command: Bans::Add { duration: Some(_), .. } })));
    }
}
