//! `--generate`: man page and completions out of the same table that parses the command line.

use std::io::Write;

use anyhow::Result;
use clap::{Command, ValueEnum};
use clap_complete::{Shell, generate as complete};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Generate {
    Man,
    Bash,
    Zsh,
    Fish,
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Fine; also when the reader of a pipe has gone."),
    ("1", "Something failed."),
    ("2", "The arguments make no sense."),
    ("3", "This kernel or this hardware cannot be observed that way."),
    ("4", "A capability is missing, or a policy forbids it."),
    ("5", "With --strict: an event was lost."),
];

/// # Errors
/// The output cannot be written.
pub fn generate(what: Generate, mut command: Command, out: &mut dyn Write) -> Result<()> {
    let name = command.get_name().to_owned();
    let shell = match what {
        Generate::Man => return man(command, out),
        Generate::Bash => Shell::Bash,
        Generate::Zsh => Shell::Zsh,
        Generate::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    complete(shell, &mut command, name, &mut text);
    Ok(out.write_all(&text)?)
}

fn man(command: Command, out: &mut dyn Write) -> Result<()> {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    // No date: the page of one version is the same on every day that it is built.
    let page = Man::new(command.after_help("")).section("8").manual("tracebelt").date("");
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;

    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in about.split("\n\n") {
        roff.control("PP", []);
        roff.text([roman(paragraph.split_whitespace().collect::<Vec<_>>().join(" "))]);
    }
    roff.to_writer(out)?;
    page.render_options_section(out)?;

    let mut roff = Roff::new();
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in examples.lines().skip(1) {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_STATUS {
        roff.control("TP", ["4"]);
        roff.text([bold(*code)]);
        roff.text([roman(*meaning)]);
    }
    Ok(roff.to_writer(out)?)
}
