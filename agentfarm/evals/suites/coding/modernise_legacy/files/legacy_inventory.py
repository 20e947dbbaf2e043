# Inventory functions. Written for Python 2.4, ported later.
import os


def readInventory(fname):
    if not os.path.exists(fname):
        return []
    inv = []
    f = open(fname, encoding="utf-8")
    for l in f.readlines():
        l = l.strip()
        if l == "" or l[0] == "#":
            continue
        parts = l.split(";")
        if len(parts) != 3:
            f.close()
            raise ValueError("bad line: %s" % l)
        d = {}
        d["name"] = parts[0].strip()
        d["qty"] = int(parts[1])
        d["price"] = int(parts[2])
        inv.append(d)
    f.close()
    return inv


def totalValue(inv):
    t = 0
    for i in range(len(inv)):
        t = t + inv[i]["qty"] * inv[i]["price"]
    return t


def itemsBelow(inv, lim):
    res = []
    for d in inv:
        if d["qty"] < lim:
            res.append(d["name"])
    res.sort()
    return res


def writeInventory(inv, fname):
    f = open(fname, "w", encoding="utf-8")
    n = 0
    for d in inv:
        f.write("%s;%d;%d\n" % (d["name"], d["qty"], d["price"]))
        n = n + 1
    f.close()
    return n
