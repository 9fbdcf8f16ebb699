//! Where the profile of a whole run goes, beside the report: a flame graph, or the difference to an earlier
//! run.

use anyhow::Result;
use common::out::Out;
#[cfg(feature = "flamegraph")]
use stack::flame::{Caption, Target};
use stack::fold::{self, Profile};

use crate::args::Args;
use crate::entries::Entries;
use crate::report;

/// All that can fail is found before tracing starts.
pub struct Graph {
    #[cfg(feature = "flamegraph")]
    target: Option<Target>,
    before: Option<Profile>,
}

impl Graph {
    /// # Errors
    /// The file of the flame graph cannot be written, or the earlier run's cannot be read.
    pub fn prepare(args: &Args) -> Result<Graph> {
        Ok(Graph {
            before: args.diff.as_deref().map(fold::read).transpose()?,
            #[cfg(feature = "flamegraph")]
            target: args.flamegraph.as_deref().map(Target::create).transpose()?,
        })
    }

    /// Is it all that was asked for? Then there is no report on stdout.
    pub fn is_all(args: &Args) -> bool {
        let picture = args.flamegraph.is_some();
        args.only_difference() || picture && !args.folded && !args.shared.json && args.by.is_none()
    }

    /// # Errors
    /// The file or stdout cannot be written.
    pub fn finish(self, out: &mut Out, args: &Args, entries: &Entries, seconds: f64) -> Result<()> {
        let mut after = report::profile(args, entries);
        if self.before.is_some() {
            // In the spelling of what was read from a file.
            let spelled = |(stack, usecs)| fold::parse(&format!("{stack} {usecs}"));
            after = after.into_iter().filter_map(spelled).collect();
        }
        #[cfg(feature = "flamegraph")]
        if let Some(target) = self.target {
            let caption = caption(args, entries, seconds);
            return match &self.before {
                Some(before) => target.write_difference(before, &after, &caption),
                None => target.write(&after, &caption),
            };
        }
        let Some(before) = self.before else { return Ok(()) };
        out.print(|sink| {
            for (stack, before, after) in fold::differences(&before, &after) {
                writeln!(sink, "{stack} {before} {after}")?;
            }
            Ok(())
        })
    }
}

#[cfg(feature = "flamegraph")]
fn caption(args: &Args, entries: &Entries, seconds: f64) -> Caption {
    let total = entries.total.ns as f64 / 1e9;
    let count = entries.total.count;
    let pooled = args.pooled().map_or_else(String::new, |quantum| {
        format!("; waits shorter than {quantum:?} by lot, their time exact")
    });
    Caption {
        title: format!("Off-CPU time of {}", report::who(args)),
        subtitle: format!("{total:.3} s in {count} waits, seen in {seconds:.3} s{pooled}"),
        unit: "us".to_owned(),
    }
}
