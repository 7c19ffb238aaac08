//! The lab's program: brings labs up and down, is their servers, shows the demo, runs the smoke test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use testkit::lab::{self, Lab, Options};
use testkit::serve::Serve;
use testkit::site::Sources;
use testkit::trace::Trace;
use testkit::{SVC, demo, smoke, tool};

#[derive(Debug, Parser)]
#[command(
    name = "selvedge-lab",
    about = "A site and its surroundings in network namespaces",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, clap::Args)]
struct From {
    /// The demo guest
    #[arg(long)]
    image: PathBuf,
    /// The example site's repository
    #[arg(long)]
    site: PathBuf,
}

impl std::convert::From<From> for Sources {
    fn from(from: From) -> Self {
        Self {
            site: from.site,
            image: from.image,
        }
    }
}

#[derive(Debug, Subcommand)]
enum What {
    /// Bring a lab up and leave it running
    Up {
        #[arg(long, default_value = "demo")]
        name: String,
        /// Hosts
        #[arg(long, default_value_t = 1)]
        hosts: u8,
        /// NICs of each host
        #[arg(long, default_value_t = 3)]
        nics: u8,
        /// Folder to push as the first commit
        #[arg(long)]
        site: Option<PathBuf>,
        /// Folder of each host in the repository; {host} stands for its name
        #[arg(long, default_value = "./shop-001")]
        path: String,
        /// Image to serve; may be repeated
        #[arg(long)]
        image: Vec<PathBuf>,
        /// Do not start the hosts' daemons
        #[arg(long)]
        no_daemon: bool,
    },
    /// Take a lab down: nothing of it is left
    Down {
        #[arg(long, default_value = "demo")]
        name: String,
        /// Look whether anything of it is left
        #[arg(long)]
        check: bool,
    },
    /// Show the main job in a lab that stays
    Demo {
        #[arg(long, default_value = "demo")]
        name: String,
        /// The demo guest
        #[arg(long)]
        image: PathBuf,
        /// The example fleet's repository
        #[arg(long)]
        fleet: PathBuf,
    },
    /// Check the claims of the demo, each with its time
    Smoke {
        #[arg(long, default_value = "smoke")]
        name: String,
        #[command(flatten)]
        sources: From,
        /// The example fleet's repository
        #[arg(long)]
        fleet: PathBuf,
    },
    /// Show the labs and their processes
    Status,
    /// Run a command inside a node: sw, svc, client, host1, …
    Exec {
        #[arg(long, default_value = "demo")]
        name: String,
        node: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Commit and push the working copy of the site repository
    Push {
        #[arg(long, default_value = "demo")]
        name: String,
        #[arg(short, long, default_value = "Change the site")]
        message: String,
    },
    /// Pull or plug a host's cable
    Link {
        #[arg(long, default_value = "demo")]
        name: String,
        /// Number of the host
        host: u8,
        /// Number of the NIC
        nic: u8,
        #[arg(value_parser = ["up", "down"])]
        state: String,
    },
    /// Turn a host off and on
    Reboot {
        #[arg(long, default_value = "demo")]
        name: String,
        /// Number of the host
        host: u8,
    },
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        git: PathBuf,
        #[arg(long)]
        git_listen: SocketAddr,
        #[arg(long)]
        images: PathBuf,
        #[arg(long)]
        images_listen: SocketAddr,
        #[arg(long)]
        hook: Vec<String>,
    },
    #[command(hide = true)]
    Guard {
        #[arg(long)]
        name: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("selvedge-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Up {
            name,
            hosts,
            nics,
            site,
            path,
            image,
            no_daemon,
        } => {
            let mut lab = Lab::up(&Options {
                hosts,
                nics,
                site_path: path,
                ..Options::new(&name)
            })?;
            image.iter().try_for_each(|file| lab.publish_image(file))?;
            if let Some(site) = site {
                lab.copy_site(&site)?;
                println!("pushed {}", lab.push("Begin the site")?);
            }
            if !no_daemon {
                (1..=hosts).try_for_each(|number| lab.start_host(number))?;
            }
            lab.keep()?;
        }
        What::Down { name, check } => {
            lab::down(&name)?;
            if check {
                testkit::wait::wait_for("a machine without traces", Duration::from_secs(10), || {
                    let left = Trace::take(&name)?.of_lab_only(&name).since(&Trace::default());
                    Ok(if left.is_empty() {
                        Ok(())
                    } else {
                        Err(left.join(", "))
                    })
                })?;
                println!("nothing of lab {name} is left");
            }
        }
        What::Demo { name, image, fleet } => demo::run(&Options::new(&name), &fleet, &image)?,
        What::Smoke { name, sources, fleet } => {
            let (options, sources) = (Options::new(&name), Sources::from(sources));
            let host = smoke::run(&options, &sources);
            smoke::run_fleet(&options, &fleet, &sources.image).and(host)?;
        }
        What::Status => status(),
        What::Exec { name, node, command } => return exec(&Lab::open(&name)?, &node, &command),
        What::Push { name, message } => println!("{}", Lab::open(&name)?.push(&message)?),
        What::Link {
            name,
            host,
            nic,
            state,
        } => {
            let lab = Lab::open(&name)?;
            if state == "up" {
                lab.link_up(host, nic)?;
            } else {
                lab.link_down(host, nic)?;
            }
        }
        What::Reboot { name, host } => Lab::open(&name)?.reboot(host)?,
        What::Serve {
            git,
            git_listen,
            images,
            images_listen,
            hook,
        } => {
            let runtime = tokio::runtime::Runtime::new().context("cannot start the servers")?;
            runtime.block_on(testkit::serve::serve(Serve {
                git,
                git_listen,
                hooks: hook,
                images,
                images_listen,
            }))?;
        }
        What::Guard { name } => lab::guard(&name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status() {
    for name in lab::list() {
        let Ok(lab) = Lab::open(&name) else { continue };
        println!(
            "lab {name}: shell {}, servers {}",
            lab.layout.shell_address(),
            lab.layout.svc_address(testkit::layout::MGMT)
        );
        for record in lab.processes() {
            let state = if record.process.runs() { "runs" } else { "is gone" };
            println!(
                "  {:<8} {:<14} {:>8} {state}",
                record.node, record.name, record.process.pid
            );
        }
        println!("  logs: {}/NODE/log", lab.layout.state().display());
        println!("  site: {} (Git server: node {SVC})", lab.layout.site().display());
    }
}

fn exec(lab: &Lab, node: &str, command: &[String]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let status = lab
        .inside(node, program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    // The shell's way to say that a signal ended it.
    let code = status.code().unwrap_or(128 + 9);
    tool::exit_code(code)
}
