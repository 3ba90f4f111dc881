"""What a process does with memory that it has freed."""

KEPT_BYTES = 1 << 30
LARGEST_ON_HEAP = 32 << 20
"""The most that glibc takes for this setting."""

KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(LARGEST_ON_HEAP),
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
}
"""Environment of a process that keeps up to a gigabyte for the next allocation, under glibc.

A network frees the same arrays after each batch that the next one asks for again. Given back to the
system they come as new pages, each to be mapped and cleared: for a small network one part in
fifteen of its time on a CPU. What a process holds at its peak stays as it was. One arena, because
the calls of an actor come in threads of their own, whose arenas were seen to give back what they
free all the same.
"""
