//! The codec that a peer is understood with, in the version that is meant for it.

use std::sync::Arc;
use std::time::Duration;

use codecs::{Build, Codec, Found, Framing, Library, Options, Shape};

use crate::config::Config;

/// What ends a payload in a stream for a script, where the listener names no framing.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Default)]
pub(crate) struct Language {
    /// The library's when it was last looked at.
    generation: Option<u64>,
    /// The device that the version is meant for.
    device: Option<Box<str>>,
    pause: Option<Duration>,
    pub(crate) kind: Kind,
}

/// How it is used.
#[derive(Default)]
pub(crate) enum Kind {
    /// There is none of this name.
    #[default]
    Missing,
    /// It runs here. What it was made by is None for one that is built in.
    Inline(Box<dyn Codec>, Option<Arc<dyn Build>>),
    /// A program outside the process, by the number of its version.
    Script(u64, Shape),
}

impl Language {
    /// Takes the newest version. What is left in a buffer is read by it.
    pub(crate) fn refresh(
        &mut self,
        config: &Config,
        library: &Library,
        device: Option<&str>,
        is_datagram: bool,
    ) {
        let generation = library.generation();
        if self.generation == Some(generation) && self.device.as_deref() == device {
            return;
        }
        (self.generation, self.device) = (Some(generation), device.map(Into::into));
        let idle = config.options.framing.as_ref().and_then(Framing::idle).filter(|_| !is_datagram);
        self.pause = idle;
        let options = Options { is_whole: is_datagram || idle.is_some(), ..config.options.clone() };
        let built_in = codecs::find(&config.codec).filter(|_| library.shelf(&config.codec).is_none());
        if let Some(def) = built_in {
            if !matches!(self.kind, Kind::Inline(_, None)) {
                self.kind = Kind::Inline((def.build)(&options), None);
            }
            return;
        }
        self.kind = match library.find(&config.codec, device.unwrap_or_default()) {
            None => Kind::Missing,
            Some(Found::Script(program, shape)) => {
                if shape == Shape::Payload && config.options.framing.is_none() && !is_datagram {
                    self.pause = Some(PAUSE);
                }
                Kind::Script(program, shape)
            }
            Some(Found::Inline(build)) => {
                if let Kind::Inline(_, Some(old)) = &self.kind
                    && Arc::ptr_eq(old, &build)
                {
                    return;
                }
                Kind::Inline(build.build(&options), Some(build))
            }
        };
    }

    /// The pause that ends a frame of a stream, if that is what does.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.pause
    }

    /// What an operator sees.
    pub(crate) fn describe(&self, config: &Config) -> String {
        match &self.kind {
            Kind::Missing => format!("{} (missing)", config.codec),
            Kind::Inline(..) => config.codec.to_string(),
            Kind::Script(program, _) => format!("{} (program {program})", config.codec),
        }
    }
}
