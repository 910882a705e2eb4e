package record

import "encoding/binary"

// adlerInit is the Adler-32 of nothing (RFC 1950).
const adlerInit = 1

// adler continues the Adler-32 sum over p: a is one more than the sum of the
// bytes, b the sum of all values that a takes, both modulo 65521.
//
// The standard library takes a byte at a time and cannot continue a sum. Here
// the bytes at even and at odd places of a word are summed in four lanes of
// 16 bits each, for as many words as the lanes have room for.
func adler(sum uint32, p []byte) uint32 {
	const (
		mod   = 65521
		lanes = 0x00ff00ff00ff00ff
		ones  = 0x0001000100010001 // times x, in the top lane: sum of the lanes
		ramp  = 0x0004000300020001 // the same with weights 4, 3, 2, 1 from the first lane on
		block = 128                // bytes; after 16 words before is at most 120*510
		chunk = 1 << 20            // bytes; far from where b leaves 64 bits
	)
	a, b := uint64(sum&0xffff), uint64(sum>>16)
	for len(p) > 0 {
		part := p[:min(len(p), chunk)]
		p = p[len(part):]
		for ; len(part) >= block; part = part[block:] {
			var total, odd, before uint64 // before: of each word, the sum of the words before it
			for i := 0; i < block; i += 8 {
				word := binary.LittleEndian.Uint64(part[i : i+8])
				o := word >> 8 & lanes
				before += total
				odd += o
				total += word&lanes + o
			}
			even := total - odd
			// A byte is in b as often as there are bytes from it to the end:
			// 8 for each word after its own, and 8 to 1 for its own.
			own := 2*(even*ramp>>48+odd*ramp>>48) - odd*ones>>48
			pairs := before&0x0000ffff0000ffff + before>>16&0x0000ffff0000ffff
			b += block*a + 8*(pairs&0xffffffff+pairs>>32) + own
			a += total * ones >> 48
		}
		for _, c := range part {
			a += uint64(c)
			b += a
		}
		a, b = a%mod, b%mod
	}
	return uint32(b<<16 | a)
}
