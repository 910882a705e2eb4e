package record

import (
	"math/bits"
	"slices"
)

// The alphabets of a deflate block (RFC 1951 §3.2.5).
const (
	endOfBlock    = 256
	firstLength   = 257
	literalsCount = 286
	distanceCount = 30
	orderCount    = 19 // of the code lengths' own alphabet

	// Four codes of literals and what was left in the writer fit into 64 bits.
	longestCode      = 14
	longestOrderCode = 7
)

// A code is the bits to write in its low half, and how many in its high half.
type code uint32

func (c code) size() uint { return uint(c >> 16) }

// tokens are the statistics of a block and the codes made of them.
type tokens struct {
	literalCounts  [literalsCount]uint32
	distanceCounts [distanceCount]uint32

	literalCodes  [literalsCount]code
	distanceCodes [32]code // as many as there are symbols; two are never used
	// lengthCodes are the codes of lengths less 3 with the bits that follow: how
	// many bits in the highest byte, the bits in the others.
	lengthCodes [256]uint32

	// header is the lengths of all codes in the alphabet for them, with the
	// bits that follow each: RFC 1951 §3.2.7.
	header         []orderToken
	orderCounts    [orderCount]uint32
	orderCodes     [orderCount]code
	literals       int // of the codes, up to the last that is used
	distances      int
	orders         int
	sorted, depths []uint32
}

type orderToken struct{ symbol, extra uint8 }

// lengthSymbols says for each length less 3 its symbol beyond firstLength.
var lengthSymbols = func() (symbols [256]uint8) {
	for symbol, base := range lengthBases {
		for i := int(base); i < 256; i++ {
			symbols[i] = uint8(symbol)
		}
	}
	return symbols
}()

// The lengths, less 3, from which on a symbol stands, and its extra bits.
var (
	lengthBases = [29]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 255}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
)

// order is the order of the lengths in a header.
var order = [orderCount]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// distanceSymbol returns the symbol of a distance less 1, and how many bits
// follow it: those are the lowest.
func distanceSymbol(d uint32) (symbol, extra uint) {
	if d < 4 {
		return uint(d), 0
	}
	top := uint(bits.Len32(d)) - 1
	return 2*top + uint(d>>(top-1)&1), top - 1
}

func (t *tokens) reset() {
	t.literalCounts = [literalsCount]uint32{endOfBlock: 1}
	t.distanceCounts = [distanceCount]uint32{}
}

func (t *tokens) countLiterals(text []byte) {
	counts := &t.literalCounts
	for _, c := range text {
		counts[c]++
	}
}

func (t *tokens) countRepeat(length, distance int) {
	t.literalCounts[firstLength+int(lengthSymbols[length-shortest])]++
	symbol, _ := distanceSymbol(uint32(distance - 1))
	t.distanceCounts[symbol]++
}

// build makes the codes, and returns the size of the block in bits: of its
// header and of its tokens.
func (t *tokens) build() (header, body int) {
	t.makeCodes(t.literalCodes[:], t.literalCounts[:], longestCode)
	t.makeCodes(t.distanceCodes[:], t.distanceCounts[:], longestCode)
	for length := range t.lengthCodes {
		symbol := lengthSymbols[length]
		c := t.literalCodes[firstLength+int(symbol)]
		follow := uint32(length-int(lengthBases[symbol])) << c.size()
		t.lengthCodes[length] = uint32(c&0xffff) | follow | uint32(c.size()+uint(lengthExtra[symbol]))<<24
	}
	for symbol, n := range t.literalCounts {
		each := int(t.literalCodes[symbol].size())
		if symbol >= firstLength {
			each += int(lengthExtra[symbol-firstLength])
		}
		body += int(n) * each
	}
	for symbol, n := range t.distanceCounts {
		each := int(t.distanceCodes[symbol].size()) + max(symbol/2-1, 0)
		body += int(n) * each
	}
	return t.buildHeader(), body
}

// buildHeader makes the header of the present codes and returns its size.
func (t *tokens) buildHeader() (size int) {
	used := func(codes []code, least int) int {
		n := len(codes)
		for n > least && codes[n-1] == 0 {
			n--
		}
		return n
	}
	t.literals, t.distances = used(t.literalCodes[:], firstLength), used(t.distanceCodes[:distanceCount], 1)
	var lengths [literalsCount + distanceCount]uint8
	for i, c := range t.literalCodes[:t.literals] {
		lengths[i] = uint8(c.size())
	}
	for i, c := range t.distanceCodes[:t.distances] {
		lengths[t.literals+i] = uint8(c.size())
	}
	t.runs(lengths[:t.literals+t.distances])
	t.makeCodes(t.orderCodes[:], t.orderCounts[:], longestOrderCode)
	t.orders = orderCount
	for t.orders > 4 && t.orderCodes[order[t.orders-1]] == 0 {
		t.orders--
	}
	size = 3 + 5 + 5 + 4 + 3*t.orders
	for _, h := range t.header {
		size += int(t.orderCodes[h.symbol].size()) + orderExtra(h.symbol)
	}
	return size
}

// orderExtra returns how many bits follow a symbol of the code lengths'.
func orderExtra(symbol uint8) int {
	switch symbol {
	case 16:
		return 2
	case 17:
		return 3
	case 18:
		return 7
	}
	return 0
}

// runs fills header with lengths, runs of the same as one symbol.
func (t *tokens) runs(lengths []uint8) {
	t.header, t.orderCounts = t.header[:0], [orderCount]uint32{}
	add := func(symbol, extra uint8) {
		t.header = append(t.header, orderToken{symbol, extra})
		t.orderCounts[symbol]++
	}
	for i := 0; i < len(lengths); {
		n := 1
		for i+n < len(lengths) && lengths[i+n] == lengths[i] {
			n++
		}
		i += n
		same := lengths[i-1]
		if same != 0 {
			add(same, 0)
			n--
		}
		for n > 0 {
			switch {
			case same == 0 && n >= 11:
				run := min(n, 138)
				add(18, uint8(run-11))
				n -= run
			case same == 0 && n >= 3:
				add(17, uint8(n-3))
				n = 0
			case same != 0 && n >= 3:
				run := min(n, 6)
				add(16, uint8(run-3))
				n -= run
			default:
				add(same, 0)
				n--
			}
		}
	}
}

// makeCodes makes a prefix code in which no code is longer than most bits, and
// which is the shortest for the counts or very near to it. A symbol that does
// not occur has no code; one that is alone has a code of one bit.
func (t *tokens) makeCodes(codes []code, counts []uint32, most int) {
	clear(codes)
	t.sorted = t.sorted[:0]
	for symbol, n := range counts {
		if n > 0 {
			t.sorted = append(t.sorted, n<<9|uint32(symbol))
		}
	}
	if len(t.sorted) == 0 {
		return
	}
	slices.Sort(t.sorted)
	t.depths = t.depths[:0]
	for _, s := range t.sorted {
		t.depths = append(t.depths, s>>9)
	}
	ofLength := codeLengths(t.depths, most)
	// The rarest have the longest codes.
	next, symbol := firstCodes(ofLength, most), 0
	lengths := [literalsCount]uint8{}
	for length := most; length > 0; length-- {
		for range ofLength[length] {
			lengths[t.sorted[symbol]&511] = uint8(length)
			symbol++
		}
	}
	for symbol := range codes {
		if length := lengths[symbol]; length > 0 {
			codes[symbol] = code(bits.Reverse16(next[length]<<(16-length))) | code(length)<<16
			next[length]++
		}
	}
}

// codeLengths returns how many codes of each length are the best for counts in
// rising order, which it uses up: Moffat and Katajainen, In-Place Calculation
// of Minimum-Redundancy Codes (1995). Codes that are too long are then
// shortened, at the cost of the next shorter ones.
func codeLengths(a []uint32, most int) (ofLength [16]int) {
	n := len(a)
	if n == 1 {
		ofLength[1] = 1
		return ofLength
	}
	// First pass, left to right: parents.
	a[0] += a[1]
	root, leaf := 0, 2
	for next := 1; next < n-1; next++ {
		if leaf >= n || a[root] < a[leaf] {
			a[next] = a[root]
			a[root] = uint32(next)
			root++
		} else {
			a[next] = a[leaf]
			leaf++
		}
		if leaf >= n || root < next && a[root] < a[leaf] {
			a[next] += a[root]
			a[root] = uint32(next)
			root++
		} else {
			a[next] += a[leaf]
			leaf++
		}
	}
	// Second pass, right to left: depths of the inner nodes.
	a[n-2] = 0
	for next := n - 3; next >= 0; next-- {
		a[next] = a[a[next]] + 1
	}
	// Third pass: how many leaves there are at each depth.
	available, used, depth := 1, 0, 0
	root = n - 2
	for available > 0 {
		for root >= 0 && int(a[root]) == depth {
			used++
			root--
		}
		leaves := available - used
		ofLength[min(depth, most)] += leaves
		available, used = 2*used, 0
		depth++
	}
	shorten(&ofLength, most)
	return ofLength
}

// shorten makes a code that can be told apart of one that has too many codes
// of the greatest length: each step lengthens one shorter code and puts one of
// the longest beside it.
func shorten(ofLength *[16]int, most int) {
	excess := -1 << most
	for length := 1; length <= most; length++ {
		excess += ofLength[length] << (most - length)
	}
	for ; excess > 0; excess-- {
		length := most - 1
		for ofLength[length] == 0 {
			length--
		}
		ofLength[length]--
		ofLength[length+1] += 2
		ofLength[most]--
	}
}

// firstCodes returns the first code of each length (RFC 1951 §3.2.2).
func firstCodes(ofLength [16]int, most int) (first [16]uint16) {
	next := 0
	for length := 1; length <= most; length++ {
		next = (next + ofLength[length-1]) << 1
		first[length] = uint16(next)
	}
	return first
}
