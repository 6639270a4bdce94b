/* Reads a table in bursts of random rows of one block; all else stays in registers, so that valgrind's cachegrind
   attributes to the line marked READ exactly the reads whose addresses tests/measure/test_cache_sim.py computes.
   Arguments: seed, reads, rows of a block, reads of a burst, bytes of a row. */
#include <stdint.h>
#include <stdlib.h>

#define TABLE_BYTES (1 << 22)

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    /* Aligned to its size, so that address 0 of the simulation falls into the same set. */
    const volatile unsigned char *table = aligned_alloc(TABLE_BYTES, TABLE_BYTES);
    if (!table) return 3;
    register uint64_t state = strtoull(argv[1], 0, 10), reads = strtoull(argv[2], 0, 10);
    register uint64_t rows = strtoull(argv[3], 0, 10), burst = strtoull(argv[4], 0, 10);
    register uint64_t row_bytes = strtoull(argv[5], 0, 10), block = 0, sum = 0;
    for (register uint64_t n = 0; n < reads; n++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        if (n % burst == 0) block = (state >> 33) % (TABLE_BYTES / (rows * row_bytes));
        uint64_t at = (block * rows + (state >> 40) % rows) * row_bytes;
        sum +=
            table[at]; /* READ */
    }
    return (int)(sum & 0); /* used, so that no read is optimised away */
}
