//! Croissant metadata beside an exported set of protected vectors: what it is, how it was made, what it promises.

use super::Error;
use crate::encode::Embeddings;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// The column of the vectors in a `.parquet` file.
const COLUMN: &str = "embedding";

/// What the maker of a set says about it; nothing of it can be computed.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    /// Name of the data set.
    pub name: &'a str,
    /// Its licence, as a name or an address.
    pub licence: Option<&'a str>,
    /// Who publishes it.
    pub creator: Option<&'a str>,
    /// Where it is published.
    pub url: Option<&'a str>,
}

/// Writes Croissant 1.1 metadata with its vocabulary of responsible AI to `path`, for the vectors in the file `set`.
///
/// `release` is what [`crate::protect::metadata`] says of them. The file is named relative to the metadata, with its digest;
/// fields are described where Croissant's readers can open them: in `.parquet` files.
///
/// # Errors
/// When `set` cannot be read, or `path` cannot be written.
pub fn write(path: &Path, set: &Path, vectors: &Embeddings, release: &Value, about: About<'_>) -> Result<(), Error> {
    let bytes = std::fs::read(set).map_err(|source| Error::Read { path: set.display().to_string(), source })?;
    let digest = digest(&bytes);
    let file = set.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = format!("{:#}\n", describe(&file, bytes.len(), &digest, vectors, release, about));
    let put = || {
        let mut out = atomic_write_file::AtomicWriteFile::open(path)?;
        out.write_all(text.as_bytes())?;
        out.commit()
    };
    put().map_err(|source| Error::Write { path: path.display().to_string(), source })
}

/// Sha256 in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

fn describe(file: &str, size: usize, digest: &str, vectors: &Embeddings, release: &Value, about: About<'_>) -> Value {
    let suffix = Path::new(file).extension().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let encoding = if suffix == "parquet" { "application/x-parquet" } else { "application/octet-stream" };
    let word = |key: &str| release[key].as_str().unwrap_or_default().to_owned();
    let (pipeline, status, unit) = (word("pipeline"), word("status"), word("unit_of_privacy"));
    let mut set = json!({
        "@context": context(),
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": about.name,
        "description": format!(
            "{} vectors of {} coordinates, released by `{pipeline}`. {status}. Unit of privacy: {unit}.",
            vectors.len(), vectors.dim()
        ),
        "isLiveDataset": false,
        "version": "1.0.0",
        "distribution": [{
            "@type": "cr:FileObject", "@id": "vectors", "name": "vectors", "contentUrl": file,
            "contentSize": format!("{size} B"), "encodingFormat": encoding, "sha256": digest,
        }],
        "rai:dataManipulationProtocol": format!("Vectors went through `{pipeline}` ({}).", word("tool")),
        "rai:personalSensitiveInformation": format!(
            "Behind the rows stand records that may be personal. Claim: {}. Adjacency: {}. Noise: {}.",
            release["claim"]["note"].as_str().unwrap_or("none"), word("adjacency"), word("sampling")
        ),
        "rai:dataLimitations": limits(release),
        "rai:dataUseCases": "Search, clustering and valuation on vectors; whoever tries to read the records back measures what the set leaks.",
    });
    for (key, value) in [("license", about.licence), ("creator", about.creator), ("url", about.url)] {
        match (key, value) {
            ("creator", Some(name)) => set[key] = json!({ "@type": "sc:Organization", "name": name }),
            (_, Some(value)) => set[key] = json!(value),
            (_, None) => {}
        }
    }
    if suffix == "parquet" {
        set["recordSet"] = json!([{
            "@type": "cr:RecordSet", "@id": "rows", "name": "rows", "description": "One row for each released vector.",
            "field": [{
                "@type": "cr:Field", "@id": format!("rows/{COLUMN}"), "name": COLUMN,
                "description": "The released vector.", "dataType": "sc:Float", "isArray": true,
                "arrayShape": vectors.dim().to_string(),
                "source": { "fileObject": { "@id": "vectors" }, "extract": { "column": COLUMN } },
            }],
        }]);
    }
    set
}

/// What the numbers do not show.
fn limits(release: &Value) -> Vec<Value> {
    let mut limits: Vec<Value> = release["warnings"].as_array().cloned().unwrap_or_default();
    if release["private"] != true {
        limits.push(json!("The release is not private: see its description."));
    }
    limits.push(json!("A guarantee covers one release of these records; further releases add up."));
    limits
}

fn context() -> Value {
    const PLAIN: [&str; 27] = [
        "arrayShape",
        "citeAs",
        "column",
        "containedIn",
        "equivalentProperty",
        "extract",
        "field",
        "fileProperty",
        "fileObject",
        "fileSet",
        "format",
        "includes",
        "isArray",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
        "path",
        "recordSet",
        "references",
        "regex",
        "repeated",
        "replace",
        "samplingRate",
        "separator",
        "source",
    ];
    let mut context = json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "sc": "https://schema.org/",
        "conformsTo": "dct:conformsTo",
        "data": { "@id": "cr:data", "@type": "@json" },
        "dataType": { "@id": "cr:dataType", "@type": "@vocab" },
        "examples": { "@id": "cr:examples", "@type": "@json" },
        "description": { "@container": "@language" },
        "name": { "@container": "@language" },
    });
    for key in PLAIN.into_iter().chain(["subField", "transform"]) {
        context[key] = json!(format!("cr:{key}"));
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::vectors;

    #[test]
    fn the_file_its_digest_its_fields_and_its_claim_are_described() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let table = Embeddings::new(vec![0.5; 12], 4).expect("finite");
        let (set, path) = (folder.path().join("x.parquet"), folder.path().join("x.croissant.json"));
        vectors::write(&set, &table, None).expect("writable");
        let release = json!({ "pipeline": "clip(l2=1) | gaussian(sigma=1)", "status": "private: so and so", "private": true,
                              "unit_of_privacy": "one record", "tool": "stitchback 0", "warnings": ["mind the gap"] });
        let about = About { name: "mine", licence: Some("CC0-1.0"), ..About::default() };
        write(&path, &set, &table, &release, about).expect("writable");
        let read: Value = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("JSON");
        let digest = digest(&std::fs::read(&set).expect("reads"));
        assert_eq!(read["distribution"][0]["sha256"], digest);
        assert_eq!(read["distribution"][0]["contentUrl"], "x.parquet");
        assert_eq!(read["recordSet"][0]["field"][0]["arrayShape"], "4");
        assert_eq!((&read["license"], &read["url"]), (&json!("CC0-1.0"), &Value::Null));
        assert!(
            read["description"].as_str().is_some_and(|d| d.contains("3 vectors of 4") && d.contains("private: so"))
        );
        assert_eq!(read["rai:dataLimitations"][0], "mind the gap");
    }
}
