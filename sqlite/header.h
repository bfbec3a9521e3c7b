/* SPDX-License-Identifier: MIT */
/* The header of a database file: https://www.sqlite.org/fileformat2.html */
#ifndef COW_SQLITE_HEADER_H
#define COW_SQLITE_HEADER_H

#include <stdint.h>

enum {
	HEADER_PAGE_SIZE = 16, /* two bytes; 1 stands for 65536 */
	HEADER_WRITE_VERSION = 18,
	HEADER_READ_VERSION = 19,
	HEADER_COUNTER = 24,
	HEADER_PAGES = 28,
	HEADER_COOKIE = 40,
	HEADER_COUNTER_COPY = 92,
	HEADER_SIZE = 100,
};

static inline uint32_t get_be32(const unsigned char *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
}

static inline void put_be32(unsigned char *bytes, uint32_t value)
{
	bytes[0] = (unsigned char)(value >> 24);
	bytes[1] = (unsigned char)(value >> 16);
	bytes[2] = (unsigned char)(value >> 8);
	bytes[3] = (unsigned char)value;
}

#endif
