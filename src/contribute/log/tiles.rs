//! The tree as static files that any web server or object store can serve.

use super::Tree;

/// Hashes in a full tile.
pub const WIDTH: u64 = 256;

/// One tile: where it lies and which hashes it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Level in tiles; one of them is eight levels of the tree.
    pub level: u32,
    /// Number within the level.
    pub number: u64,
    /// Hashes in it, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// Its path: `tile/<level>/<number in groups of three digits>[.p/<width>]`.
    pub fn path(&self) -> String {
        let partial = if self.width < WIDTH { format!(".p/{}", self.width) } else { String::new() };
        format!("tile/{}/{}{partial}", self.level, groups(self.number))
    }

    /// Its bytes.
    pub fn content(&self, tree: &Tree) -> Vec<u8> {
        let from = (self.number * WIDTH) as usize;
        tree.level(8 * self.level as usize)[from..from + self.width as usize].concat()
    }
}

/// Digits in groups of three, every group but the last marked with an `x`.
fn groups(number: u64) -> String {
    let mut parts = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        parts.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    parts.reverse();
    parts.join("/")
}

/// All tiles of a log of `size` entries, level by level; the last of a level may be partial.
pub fn tiles(size: u64) -> Vec<Tile> {
    let mut out = Vec::new();
    for level in 0.. {
        let hashes = size.checked_shr(8 * level).unwrap_or(0);
        if hashes == 0 {
            break;
        }
        out.extend((0..hashes / WIDTH).map(|number| Tile { level, number, width: WIDTH }));
        if !hashes.is_multiple_of(WIDTH) {
            out.push(Tile { level, number: hashes / WIDTH, width: hashes % WIDTH });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_of_seventy_thousand_entries() {
        let all = tiles(70_000);
        let count = |level: u32, full: bool| all.iter().filter(move |t| t.level == level && (t.width == WIDTH) == full);
        assert_eq!((count(0, true).count(), count(1, true).count(), count(2, true).count()), (273, 1, 0));
        let partial: Vec<u64> = (0..3).flat_map(|l| count(l, false).map(|t| t.width)).collect();
        assert_eq!(partial, [112, 17, 1]);
        assert_eq!(Tile { level: 0, number: 1_234_067, width: WIDTH }.path(), "tile/0/x001/x234/067");
        assert_eq!(Tile { level: 1, number: 1, width: 17 }.path(), "tile/1/001.p/17");
        assert!(tiles(0).is_empty());
    }

    #[test]
    fn a_tile_holds_the_hashes_of_its_level() {
        let mut tree = Tree::default();
        for i in 0..600_u32 {
            tree.push(&i.to_be_bytes());
        }
        let all = tiles(600);
        assert_eq!(
            all.iter().map(Tile::path).collect::<Vec<_>>(),
            ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]
        );
        assert_eq!(all[0].content(&tree).len(), 8192);
        assert_eq!(all[3].content(&tree), [tree.root(256), tree.level(8)[1]].concat());
    }
}
