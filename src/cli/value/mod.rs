//! `stitchback value`: the contribution loop. One file for each part of it.

mod agent;
mod attack;
mod check;
mod edge;
mod simulate;

use stitchback::Exit;
use stitchback::contribute::Error;

/// Contribute protected signals, value them, prove and spend what they are worth
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Setup(edge::Setup),
    Serve(edge::Serve),
    Close(edge::Close),
    Settle(edge::Settle),
    Catalogue(edge::NextCatalogue),
    Contribute(agent::Contribute),
    Redeem(agent::Redeem),
    Balance(agent::Balance),
    Request(agent::Request),
    Verify(check::Verify),
    Audit(check::Audit),
    Simulate(simulate::Args),
    Attack(attack::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::Setup(args) => edge::setup(args),
        Verb::Serve(args) => edge::serve(args),
        Verb::Close(args) => edge::close(args),
        Verb::Settle(args) => edge::settle(args),
        Verb::Catalogue(args) => edge::catalogue(args),
        Verb::Contribute(args) => agent::contribute(args),
        Verb::Redeem(args) => agent::redeem(args),
        Verb::Balance(args) => agent::balance(args),
        Verb::Request(args) => agent::request(args),
        Verb::Verify(args) => check::verify(args),
        Verb::Audit(args) => check::audit(args),
        Verb::Simulate(args) => simulate::run(args),
        Verb::Attack(args) => attack::run(args),
    }
}

/// Adds to what will be printed.
fn add(text: &mut String, more: &str) {
    text.push_str(more);
}

/// Prints text that ends its own lines.
fn say(text: &str) -> std::io::Result<()> {
    crate::cli::ui::print(text.trim_end())
}

/// A failure of the contribution loop, with its exit code.
fn fault(error: Error) -> stitchback::Error {
    error.into()
}

/// Reads a text file.
fn read(path: &std::path::Path) -> Result<String, stitchback::Error> {
    std::fs::read_to_string(path).map_err(|source| fault(Error::Io { path: path.display().to_string(), source }))
}

/// 32 bytes of the system's randomness.
fn secret() -> anyhow::Result<[u8; 32]> {
    use rand::TryRng as _;
    let mut out = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut out)?;
    Ok(out)
}

/// The 32 secret bytes of a key file, made on first use where `create` says so; only its owner can read it.
fn key_file(path: &std::path::Path, create: bool) -> anyhow::Result<[u8; 32]> {
    use stitchback::contribute::{agent::write_private, catalogue::hex, message::unhex};
    if create && !path.exists() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| fault(Error::Io { path: folder.display().to_string(), source }))?;
        }
        write_private(path, format!("{}\n", hex(&secret()?)).as_bytes()).map_err(fault)?;
    }
    let text = read(path)?;
    unhex(text.trim()).ok_or_else(|| {
        let why = "a key file holds 64 hexadecimal digits".to_owned();
        fault(Error::Malformed { path: path.display().to_string(), why }).into()
    })
}

/// A client of one edge.
struct Client {
    base: String,
    agent: ureq::Agent,
}

impl Client {
    fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(std::time::Duration::from_secs(30)))
            .http_status_as_error(false)
            .build();
        Self { base: url.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    fn get(&self, path: &str) -> Result<(u16, String), stitchback::Error> {
        self.read(self.agent.get(format!("{}{path}", self.base)).call())
    }

    fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<(u16, String), stitchback::Error> {
        let body = serde_json::to_string(body).expect("a message is text");
        let request = self.agent.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        self.read(request.send(body))
    }

    fn read(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(u16, String), stitchback::Error> {
        let failed = |e: ureq::Error| fault(Error::Input(format!("the edge at {} cannot be reached: {e}", self.base)));
        let mut response = response.map_err(failed)?;
        let text = response.body_mut().read_to_string().map_err(failed)?;
        Ok((response.status().as_u16(), text))
    }

    /// The text of a 200; anything else as the edge's own words.
    fn text(&self, answer: (u16, String)) -> Result<String, stitchback::Error> {
        let (status, text) = answer;
        if status == 200 {
            return Ok(text);
        }
        let why = reason(&text);
        Err(fault(Error::Input(format!("the edge at {} refuses ({status}): {why}", self.base))))
    }

    /// A 200 as JSON; anything else as the edge's own words.
    fn json<T: serde::de::DeserializeOwned>(&self, answer: (u16, String)) -> Result<T, stitchback::Error> {
        serde_json::from_str(&self.text(answer)?)
            .map_err(|e| fault(Error::Input(format!("the edge at {} answers something else: {e}", self.base))))
    }

    /// The current epoch.
    fn epoch(&self) -> Result<u64, stitchback::Error> {
        let epoch: serde_json::Value = self.json(self.get("/v1/epoch")?)?;
        Ok(epoch["epoch"].as_u64().unwrap_or_default())
    }
}

/// Why the edge refuses, in its own words.
fn reason(answer: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    said["error"].as_str().unwrap_or("no reason given").to_owned()
}
