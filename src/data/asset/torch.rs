//! The torch format of before version 1.6, read for its tensors and for nothing else, made into safetensors.
//!
//! Five pickles stand back to back (magic, protocol, machine, tensors by name, storage keys in file order), then the raw
//! storages: a count of eight bytes and the elements. A pickle is a program, and this one is not run: the machine below
//! knows the thirty opcodes that a table of tensors needs and four global names as opaque tags; every other opcode and
//! name ends the reading. Nothing is imported or called, and no length is believed before it is checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use safetensors::tensor::{Dtype, TensorView};

use super::Error;

/// The integer of the first pickle, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;
/// Tuples in tuples; a tensor's arguments need two levels.
const DEPTH: usize = 8;
/// Bytes of all tensors together: tensors may share a storage, so the file's own size is no bound.
const TOTAL_BYTES: usize = 1 << 30;
/// Counters of a training run, of no use afterwards.
const DROPPED: &str = "num_batches_tracked";

/// Writes `model.safetensors`, every tensor in f32 and row-major, into `into`; the same bytes in, the same out.
pub(super) fn convert(name: &str, bytes: &[u8], into: &Path) -> Result<(), Error> {
    let bad = |why: String| Error::Container { file: name.to_owned(), why };
    let tensors = read(bytes).map_err(bad)?;
    let views = tensors.iter().map(|(name, (shape, data))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).expect("as many bytes as the shape asks for");
        (name, view)
    });
    let weights = into.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &weights).map_err(|e| bad(e.to_string()))?;
    File::open(&weights).and_then(|file| file.sync_all()).map_err(Error::io(&weights))
}

/// Shape, and row-major f32 as bytes.
type Dense = (Vec<usize>, Vec<u8>);

/// Every tensor of the file by name.
fn read(file: &[u8]) -> Result<BTreeMap<String, Dense>, String> {
    let mut at = Cursor { left: file };
    match run(&mut at)? {
        Value::Long(magic) if *magic == MAGIC => {}
        _ => return Err("bad magic: not a torch file of before version 1.6".into()),
    }
    if !matches!(run(&mut at)?, Value::Int(PROTOCOL)) {
        return Err(format!("the protocol is not {PROTOCOL}"));
    }
    let Value::Map(machine) = run(&mut at)? else { return Err("the third pickle is not a dictionary".into()) };
    if !machine.iter().any(|(key, value)| &**key == "little_endian" && matches!(value, Value::Bool(true))) {
        return Err("the file is not little-endian".into());
    }
    let Value::Map(table) = run(&mut at)? else { return Err("the fourth pickle is not a dictionary".into()) };
    let Value::List(keys) = run(&mut at)? else { return Err("the fifth pickle is not a list".into()) };
    let mut lent: BTreeMap<Rc<str>, (Element, usize)> = BTreeMap::new();
    let mut tensors = Vec::with_capacity(table.len());
    for (name, value) in table {
        let Value::Tensor(tensor) = value else { return Err(format!("`{name}` is not a tensor")) };
        let storage = &tensor.storage;
        let counter = name.rsplit('.').next() == Some(DROPPED);
        if !counter && storage.element != Element::Float {
            return Err(format!("`{name}` holds integers; only `{DROPPED}` may"));
        }
        let known = lent.entry(storage.key.clone()).or_insert((storage.element, storage.length));
        if *known != (storage.element, storage.length) {
            return Err(format!("`{name}` disagrees with another tensor about storage `{}`", storage.key));
        }
        if !counter {
            tensors.push((name, tensor));
        }
    }
    let storages = storages(&mut at, keys, &lent)?;
    let mut dense = BTreeMap::new();
    let mut total = 0usize;
    for (name, tensor) in tensors {
        let key = &tensor.storage.key;
        let data = storages.get(key).ok_or_else(|| format!("`{name}`: there is no storage `{key}`"))?;
        let values = tensor.values().map_err(|why| format!("`{name}`: {why}"))?;
        total = values.checked_mul(4).and_then(|bytes| total.checked_add(bytes)).unwrap_or(usize::MAX);
        if total > TOTAL_BYTES {
            return Err(format!("the tensors are larger than {TOTAL_BYTES} bytes together"));
        }
        let bytes = tensor.gather(values, data);
        if dense.insert(name.to_string(), (tensor.shape, bytes)).is_some() {
            return Err(format!("`{name}` appears twice"));
        }
    }
    Ok(dense)
}

/// The raw bytes of each storage, in the order of `keys`; the last one ends the file.
fn storages<'a>(
    at: &mut Cursor<'a>,
    keys: Vec<Value>,
    lent: &BTreeMap<Rc<str>, (Element, usize)>,
) -> Result<BTreeMap<Rc<str>, &'a [u8]>, String> {
    let mut storages = BTreeMap::new();
    for key in keys {
        let Value::Text(key) = key else { return Err("a storage key is not a text".into()) };
        let (element, length) = lent.get(&key).ok_or_else(|| format!("no tensor lies in storage `{key}`"))?;
        let count = i64::from_le_bytes(at.array("a storage's count")?);
        if usize::try_from(count) != Ok(*length) {
            return Err(format!("storage `{key}` has {count} elements, its tensors say {length}"));
        }
        let bytes = length.checked_mul(element.bytes()).ok_or_else(|| format!("storage `{key}` is too large"))?;
        let data = at.take(bytes, "a storage")?;
        if storages.insert(key.clone(), data).is_some() {
            return Err(format!("storage `{key}` is listed twice"));
        }
    }
    if at.left.is_empty() { Ok(storages) } else { Err(format!("{} bytes behind the last storage", at.left.len())) }
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Float,
    Long,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::Float => 4,
            Element::Long => 8,
        }
    }
}

/// The four names that a file may mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    Storage(Element),
}

#[derive(Debug, Clone)]
struct Storage {
    element: Element,
    key: Rc<str>,
    length: usize,
}

/// A view into a storage; offset and strides count elements.
#[derive(Debug, Clone)]
struct Tensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Tensor {
    /// How many values it has, once it is known that all of them lie inside its storage.
    fn values(&self) -> Result<usize, String> {
        let length = self.storage.length;
        if self.shape.len() != self.strides.len() {
            return Err(format!("{} sizes and {} strides", self.shape.len(), self.strides.len()));
        }
        let values = self.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        // A stride of 0 would blow one element up to any size.
        let values = values
            .filter(|values| *values <= length)
            .ok_or_else(|| format!("shape {:?} has more values than its storage, {length}", self.shape))?;
        if values == 0 {
            return Ok(0);
        }
        let steps = self.shape.iter().zip(&self.strides).map(|(size, stride)| (size - 1).checked_mul(*stride));
        let last = steps.into_iter().try_fold(self.offset, |at, step| step.and_then(|step| at.checked_add(step)));
        match last {
            Some(last) if last < length => Ok(values),
            _ => Err(format!(
                "offset {}, shape {:?} and strides {:?} leave a storage of {length}",
                self.offset, self.shape, self.strides
            )),
        }
    }

    /// The values in row-major order, as bytes. `values` is [`Tensor::values`], which has checked every index.
    fn gather(&self, values: usize, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(values * 4);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..values {
            bytes.extend_from_slice(&data[at * 4..at * 4 + 4]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        bytes
    }
}

/// What can lie on the stack.
#[derive(Debug, Clone)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    Long(Rc<[u8]>),
    Text(Rc<str>),
    Name(Name),
    /// The items, and how many levels of tuples they are.
    Tuple(Rc<[Value]>, usize),
    /// Texts: the storage keys.
    List(Vec<Value>),
    /// Tensors and truths; whatever else stood in it is `None`.
    Map(Vec<(Rc<str>, Value)>),
    Storage(Storage),
    Tensor(Tensor),
}

/// What is left of the file while it is read from front to back.
struct Cursor<'a> {
    left: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let (head, tail) = self
            .left
            .split_at_checked(count)
            .ok_or_else(|| format!("{what} needs {count} bytes, {} are left", self.left.len()))?;
        self.left = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        Ok(self.take(N, what)?.try_into().expect("as many as taken"))
    }

    fn byte(&mut self, what: &str) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, length: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.take(length, "a text")?).map_err(|_| "a text is not UTF-8")?;
        Ok(Value::Text(text.into()))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.left.iter().position(|b| *b == b'\n').ok_or("a name does not end")?;
        let line = self.take(end, "a name")?;
        self.take(1, "a line's end")?;
        std::str::from_utf8(line).map_err(|_| "a name is not UTF-8".into())
    }
}

/// The stack machine, one pickle long. Every opcode takes at least one byte, so the file's size bounds stack and memo.
#[derive(Default)]
struct Machine {
    stack: Vec<Value>,
    /// Stack heights.
    marks: Vec<usize>,
    /// Names and texts only. A container that were fetched again would be shared, which a table of tensors never is.
    memo: BTreeMap<u32, Option<Value>>,
}

/// Runs one pickle to its STOP.
fn run(at: &mut Cursor<'_>) -> Result<Value, String> {
    let mut machine = Machine::default();
    loop {
        let opcode = at.byte("an opcode")?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return if machine.stack.is_empty() { Ok(value) } else { Err("a pickle ends with a full stack".into()) };
        }
        machine.step(opcode, at)?;
    }
}

impl Machine {
    fn step(&mut self, opcode: u8, at: &mut Cursor<'_>) -> Result<(), String> {
        match opcode {
            0x80 => match at.byte("the pickle's version")? {
                2 => {}
                other => return Err(format!("pickle version {other} is not known, expected 2")),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool(opcode == 0x88)),
            0x8a => {
                let length = at.byte("an integer's length")?;
                self.stack.push(Value::Long(at.take(usize::from(length), "an integer")?.into()));
            }
            b'J' => self.stack.push(Value::Int(i32::from_le_bytes(at.array("an integer")?).into())),
            b'K' => self.stack.push(Value::Int(at.byte("an integer")?.into())),
            b'M' => self.stack.push(Value::Int(u16::from_le_bytes(at.array("an integer")?).into())),
            b'X' => {
                let length = at.u32("a text's length")? as usize;
                self.stack.push(at.text(length)?);
            }
            b')' => self.tuple(self.stack.len())?,
            b't' => {
                let mark = self.mark()?;
                self.tuple(mark)?;
            }
            0x85 | 0x86 => {
                let first = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or(EMPTY)?;
                self.tuple(first)?;
            }
            b'}' => self.stack.push(Value::Map(Vec::new())),
            b']' => self.stack.push(Value::List(Vec::new())),
            b's' => {
                let first = self.stack.len().checked_sub(2).ok_or(EMPTY)?;
                self.set_items(first)?;
            }
            b'u' => {
                let mark = self.mark()?;
                self.set_items(mark)?;
            }
            b'e' => {
                let mark = self.mark()?;
                let items = self.stack.split_off(mark);
                let Some(Value::List(list)) = self.stack.last_mut() else {
                    return Err("APPENDS without a list".into());
                };
                // Only the storage keys stand in a list. A list in a list would have no bound of depth.
                if !items.iter().all(|item| matches!(item, Value::Text(_))) {
                    return Err("a list holds something else than texts".into());
                }
                list.extend(items);
            }
            b'q' | b'r' => {
                let slot = if opcode == b'q' { at.byte("a memo slot")?.into() } else { at.u32("a memo slot")? };
                let top = self.stack.last().ok_or(EMPTY)?;
                let kept = matches!(top, Value::Name(_) | Value::Text(_)).then(|| top.clone());
                self.memo.insert(slot, kept);
            }
            b'h' | b'j' => {
                let slot = if opcode == b'h' { at.byte("a memo slot")?.into() } else { at.u32("a memo slot")? };
                let kept = self.memo.get(&slot).ok_or_else(|| format!("memo slot {slot} is empty"))?;
                self.stack.push(kept.clone().ok_or_else(|| format!("memo slot {slot} holds a container"))?);
            }
            b'Q' => {
                let storage = storage(self.pop()?)?;
                self.stack.push(Value::Storage(storage));
            }
            b'c' => self.stack.push(Value::Name(name(at.line()?, at.line()?)?)),
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.stack.push(reduce(&function, &arguments)?);
            }
            // Attributes of the table itself: versions of its modules, dropped.
            b'b' => {
                self.pop()?;
                if !matches!(self.stack.last(), Some(Value::Map(_))) {
                    return Err("BUILD on something else than a dictionary".into());
                }
            }
            other => return Err(format!("opcode {other:#04x} is not one that a table of tensors needs")),
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.marks.last().is_some_and(|mark| *mark >= self.stack.len()) {
            return Err("an opcode reaches below a mark".into());
        }
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn mark(&mut self) -> Result<usize, String> {
        self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or_else(|| "there is no mark".into())
    }

    /// Makes one tuple of everything from `first` on.
    fn tuple(&mut self, first: usize) -> Result<(), String> {
        let items = self.stack.split_off(first);
        let depth = items.iter().map(|item| if let Value::Tuple(_, depth) = item { *depth } else { 0 }).max();
        let depth = 1 + depth.unwrap_or(0);
        if depth > DEPTH {
            return Err(format!("tuples stand in more than {DEPTH} tuples"));
        }
        self.stack.push(Value::Tuple(items.into(), depth));
        Ok(())
    }

    /// Moves pairs from `first` on into the dictionary below them.
    fn set_items(&mut self, first: usize) -> Result<(), String> {
        let mut items = self.stack.split_off(first).into_iter();
        let Some(Value::Map(map)) = self.stack.last_mut() else { return Err("SETITEMS without a dictionary".into()) };
        while let Some(key) = items.next() {
            let Value::Text(key) = key else { return Err("a dictionary's key is not a text".into()) };
            let value = items.next().ok_or_else(|| format!("`{key}` has no value"))?;
            // Tensors and the machine's order of bytes are all that is read later. Sizes, versions and whatever else may hold
            // containers is dropped, which bounds the depth.
            map.push((key, if matches!(value, Value::Tensor(_) | Value::Bool(_)) { value } else { Value::None }));
        }
        Ok(())
    }
}

const EMPTY: &str = "an opcode finds the stack empty";

/// An allowed global, as a tag.
fn name(module: &str, name: &str) -> Result<Name, String> {
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Name::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Name::RebuildTensor),
        ("torch", "FloatStorage") => Ok(Name::Storage(Element::Float)),
        ("torch", "LongStorage") => Ok(Name::Storage(Element::Long)),
        _ => Err(format!("the global `{module}.{name}` is not allowed: a table of tensors does not need it")),
    }
}

/// `("storage", type, key, place, length, None)`.
fn storage(id: Value) -> Result<Storage, String> {
    let Value::Tuple(parts, _) = id else { return Err("a persistent id is not a tuple".into()) };
    match &*parts {
        [
            Value::Text(kind),
            Value::Name(Name::Storage(element)),
            Value::Text(key),
            Value::Text(_),
            length,
            Value::None,
        ] if &**kind == "storage" => {
            Ok(Storage { element: *element, key: key.clone(), length: count(length, "a storage's length")? })
        }
        _ => Err("a persistent id does not name a storage".into()),
    }
}

/// The two calls that a table of tensors makes: an empty dictionary, and
/// `_rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks)`.
fn reduce(function: &Value, arguments: &Value) -> Result<Value, String> {
    let Value::Tuple(arguments, _) = arguments else { return Err("arguments are not a tuple".into()) };
    match (function, &**arguments) {
        (Value::Name(Name::OrderedDict), []) => Ok(Value::Map(Vec::new())),
        (
            Value::Name(Name::RebuildTensor),
            [Value::Storage(storage), offset, sizes, strides, Value::Bool(_), Value::Map(_)],
        ) => Ok(Value::Tensor(Tensor {
            storage: storage.clone(),
            offset: count(offset, "an offset")?,
            shape: counts(sizes, "a size")?,
            strides: counts(strides, "a stride")?,
        })),
        _ => Err("a call is neither an empty dictionary nor a tensor".into()),
    }
}

fn counts(value: &Value, what: &str) -> Result<Vec<usize>, String> {
    let Value::Tuple(items, _) = value else { return Err(format!("{what} does not stand in a tuple")) };
    items.iter().map(|item| count(item, what)).collect()
}

fn count(value: &Value, what: &str) -> Result<usize, String> {
    match value {
        Value::Int(n) => usize::try_from(*n).map_err(|_| format!("{what} is negative: {n}")),
        _ => Err(format!("{what} is not a small integer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with two tensors whose storages lie in the other order, and a counter; a test can spoil a part of it.
    struct Sketch {
        global: &'static str,
        stride: u16,
        size: u8,
        order: [&'static str; 3],
        tail: Vec<u8>,
        wrap: usize,
    }

    impl Default for Sketch {
        fn default() -> Self {
            let order = ["300", "200", "100"];
            Self { global: "ctorch\nFloatStorage\n", stride: 1, size: 3, order, tail: Vec::new(), wrap: 0 }
        }
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }

    impl Sketch {
        /// `name -> _rebuild_tensor_v2(("storage", type, key, "cpu", length, None), offset, sizes, strides, False, OrderedDict())`
        fn tensor(out: &mut Vec<u8>, name: &str, kind: &str, key: &str, length: u8, view: &[u8]) {
            text(out, name);
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(out, "storage");
            out.extend(kind.as_bytes());
            text(out, key);
            text(out, "cpu");
            out.extend([b'K', length]);
            out.extend(b"NtQ");
            out.extend(view);
            out.extend([0x89, b'h', 0, b')', b'R', b't', b'R']);
        }

        fn bytes(&self) -> Vec<u8> {
            let mut out = vec![0x80, 2, 0x8a, 10];
            out.extend(MAGIC);
            out.extend(b".\x80\x02M\xe9\x03.\x80\x02}q\x00(");
            text(&mut out, "protocol_version");
            out.extend(b"M\xe9\x03");
            text(&mut out, "little_endian");
            out.push(0x88);
            text(&mut out, "type_sizes");
            out.extend(b"}(");
            text(&mut out, "int");
            out.extend(b"K\x04uu.");
            out.extend(b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(");
            // A 2 x 3 matrix that is stored by columns behind one element of nothing.
            let [low, high] = self.stride.to_le_bytes();
            let matrix = [b'K', 1, b'K', 2, b'K', self.size, 0x86, b'M', low, high, b'K', 2, 0x86];
            Self::tensor(&mut out, "net.weight", self.global, "100", 7, &matrix);
            Self::tensor(&mut out, "net.bias", self.global, "200", 2, &[b'K', 0, b'K', 2, 0x85, b'K', 1, 0x85]);
            Self::tensor(&mut out, "net.num_batches_tracked", "ctorch\nLongStorage\n", "300", 1, b"K\x00))");
            out.push(b'u');
            out.extend(b"}");
            text(&mut out, "_metadata");
            out.extend(b")");
            out.extend(std::iter::repeat_n(0x85, self.wrap));
            out.extend(b"sb.");
            out.extend(b"\x80\x02](");
            for key in self.order {
                text(&mut out, key);
            }
            out.extend(b"e.");
            for key in self.order {
                let values: &[f32] = match key {
                    "100" => &[9.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0],
                    "200" => &[0.5, -0.5],
                    _ => &[],
                };
                let count = values.len().max(1) as i64;
                out.extend(count.to_le_bytes());
                out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
                if values.is_empty() {
                    out.extend(77i64.to_le_bytes());
                }
            }
            out.extend(&self.tail);
            out
        }
    }

    fn why(bytes: &[u8]) -> String {
        read(bytes).err().unwrap_or_else(|| "it was read".into())
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn storages_are_found_by_key_and_views_become_row_major() {
        for order in [["300", "200", "100"], ["100", "200", "300"]] {
            let tensors = read(&Sketch { order, ..Sketch::default() }.bytes()).expect("a good file");
            assert_eq!(tensors.keys().collect::<Vec<_>>(), ["net.bias", "net.weight"], "the counter is dropped");
            let (shape, bytes) = &tensors["net.weight"];
            assert_eq!((shape.as_slice(), floats(bytes)), (&[2, 3][..], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
            assert_eq!(floats(&tensors["net.bias"].1), [0.5, -0.5]);
        }
    }

    #[test]
    fn a_file_becomes_safetensors_with_the_same_bytes_each_time() {
        super::super::keep_seed("torch", &Sketch::default().bytes());
        let into = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let [one, two] = into.each_ref().map(|dir| {
            convert("tiny", &Sketch::default().bytes(), dir.path()).expect("a good file");
            std::fs::read(dir.path().join("model.safetensors")).expect("written")
        });
        assert_eq!(one, two);
        let weights = safetensors::SafeTensors::deserialize(&one).expect("our own file");
        assert_eq!(weights.tensor("net.weight").expect("its name").shape(), [2, 3]);
    }

    #[test]
    fn every_spoiled_file_is_refused_for_its_own_reason() {
        let good = Sketch::default().bytes();
        let spoil = |change: &dyn Fn(&mut Sketch)| {
            let mut sketch = Sketch::default();
            change(&mut sketch);
            sketch.bytes()
        };
        let replaced = |from: &[u8], to: &[u8]| {
            let at = good.windows(from.len()).position(|w| w == from).expect("it is there");
            [&good[..at], to, &good[at + from.len()..]].concat()
        };
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("bad magic", replaced(&MAGIC, &[0; 10])),
            ("protocol is not 1001", replaced(b"M\xe9\x03", b"M\xea\x03")),
            ("not little-endian", replaced(&[0x88], &[0x89])),
            ("`os.system` is not allowed", spoil(&|s| s.global = "cos\nsystem\n")),
            ("`torch.HalfStorage` is not allowed", spoil(&|s| s.global = "ctorch\nHalfStorage\n")),
            ("opcode 0x69", spoil(&|s| s.global = "ios\nsystem\n")),
            ("`net.weight` holds integers", spoil(&|s| s.global = "ctorch\nLongStorage\n")),
            ("leave a storage of 7", spoil(&|s| s.stride = 3)),
            ("leave a storage of 7", spoil(&|s| s.stride = u16::MAX)),
            ("more values than its storage", spoil(&|s| s.size = 200)),
            ("more than 8 tuples", spoil(&|s| s.wrap = 1_000_000)),
            ("`net.bias` disagrees", replaced(b"X\x03\x00\x00\x00200X\x03", b"X\x03\x00\x00\x00100X\x03")),
            ("no tensor lies in storage `400`", spoil(&|s| s.order[0] = "400")),
            ("is listed twice", spoil(&|s| s.order = ["200", "200", "100"])),
            ("2 bytes behind", spoil(&|s| s.tail = vec![0; 2])),
            ("memo slot 7 is empty", replaced(&[0x89, b'h', 0], &[0x89, b'h', 7])),
            ("holds a container", replaced(&[0x89, b'h', 0], &[0x89, b'h', 1])),
        ];
        for (expected, bytes) in cases {
            let said = why(&bytes);
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(read(&good).is_ok());
    }

    /// Deep values overflow the stack when they are dropped, if not before.
    #[test]
    fn containers_in_containers_stay_flat_or_are_refused() {
        const DEEP: usize = 300_000;
        let pickle = |bytes: Vec<u8>| run(&mut Cursor { left: &bytes });
        let lists = [b"](".repeat(DEEP), b"e".repeat(DEEP), b".".to_vec()].concat();
        // The innermost list is empty; the next one would hold it.
        assert_eq!(pickle(lists).expect_err("lists in lists"), "a list holds something else than texts");
        let maps = [b"}X\x01\0\0\0k".repeat(DEEP), b"N".to_vec(), b"s\x85".repeat(DEEP), b".".to_vec()].concat();
        let Ok(Value::Tuple(items, 1)) = pickle(maps) else { panic!("a tuple of a dictionary") };
        let [Value::Map(map)] = &*items else { panic!("one dictionary") };
        assert!(matches!(map.as_slice(), [(_, Value::None)]), "{map:?}");
    }

    #[test]
    fn every_shortened_file_is_refused() {
        let good = Sketch::default().bytes();
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length} bytes were read");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_spoiled_byte_is_refused_or_read_without_a_panic(at in 0usize..600, value: u8) {
            let mut bytes = Sketch::default().bytes();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = read(&bytes);
        }
    }
}
