/**
 * A list of agents, filtered and in order, that is kept rather than made anew: with each draw only those
 * that it has changed are tested again and put into their places. Pure.
 */

import { KEYS, type Column, type Key } from "./columns";
import { filterOf } from "./filter";
import type { Member, Members } from "./members";
import { compare, merged } from "./order";

/** What a list is to show, and how. */
export interface Wish {
  query: string;
  column: Column;
  isDescending: boolean;
}

/** Where a member stands: also one that is not wanted, whom what is typed next may want. */
interface Place {
  member: Member;
  key: Key;
  name: string;
  isWanted: boolean;
  /** Its member has gone, or stands elsewhere. */
  isLeft: boolean;
}

export class Roster {
  #wish: Wish = { query: "", column: "name", isDescending: false };
  #test = filterOf("");
  #places: Place[] = [];
  #shown: readonly Member[] = [];
  /** The draw that was followed last. */
  #followed = 0;

  /** Returns those that the wish asks for, in its order: the same array while none of them moves. */
  list(members: Members, wish: Wish): readonly Member[] {
    const before = this.#wish;
    this.#wish = wish;
    const isSame = before.column === wish.column && before.isDescending === wish.isDescending;
    let hasMoved = isSame ? this.#follow(members) : this.#sort(members);
    if (before.query !== wish.query) hasMoved = this.#select() || hasMoved;
    this.#followed = members.draws;
    if (hasMoved) {
      const wanted = this.#places.filter((place) => place.isWanted);
      this.#shown = wanted.map((place) => place.member);
    }
    return this.#shown;
  }

  /** Gives everybody a place. */
  #sort(members: Members): boolean {
    this.#places = Array.from(members, (member) => this.#placeOf(member)).sort(this.#order);
    return true;
  }

  /** Gives a place to those who have come or belong elsewhere, and returns whether that shows. */
  #follow(members: Members): boolean {
    const arriving: Place[] = [];
    let hasMoved = false;
    for (const place of this.#places) {
      const { member } = place;
      if (!member.isGone && member.changedAt <= this.#followed) continue;
      const now = this.#placeOf(member);
      const stays = !member.isGone && now.key === place.key && now.name === place.name;
      hasMoved ||= stays ? now.isWanted !== place.isWanted : now.isWanted || place.isWanted;
      place.isWanted = now.isWanted;
      place.isLeft = !stays;
      if (!stays && !member.isGone) arriving.push(now);
    }
    const othersMoved = members.movedAt > this.#followed;
    for (const member of othersMoved ? members : []) {
      if (member.joinedAt <= this.#followed) continue;
      const place = this.#placeOf(member);
      hasMoved ||= place.isWanted;
      arriving.push(place);
    }
    if (arriving.length > 0 || othersMoved) {
      const staying = this.#places.filter((place) => !place.isLeft);
      this.#places = merged(arriving.sort(this.#order), staying, this.#order);
    }
    return hasMoved;
  }

  /** Tests everybody anew, and returns whether that shows. */
  #select(): boolean {
    this.#test = filterOf(this.#wish.query);
    let hasMoved = false;
    for (const place of this.#places) {
      const isWanted = this.#test(place.member);
      hasMoved ||= isWanted !== place.isWanted;
      place.isWanted = isWanted;
    }
    return hasMoved;
  }

  #placeOf(member: Member): Place {
    const key = KEYS[this.#wish.column](member);
    return { member, key, name: member.name, isWanted: this.#test(member), isLeft: false };
  }

  #order = (a: Place, b: Place): number => {
    const order =
      typeof a.key === "number" && typeof b.key === "number"
        ? a.key - b.key
        : compare(String(a.key), String(b.key));
    const sign = this.#wish.isDescending ? -1 : 1;
    return sign * order || compare(a.name, b.name) || compare(a.member.id, b.member.id);
  };
}

/** Keeps rows where they are: those that are gone leave, new ones come last. */
export function frozen(order: readonly Member[], wanted: readonly Member[]): readonly Member[] {
  const left = new Set(wanted);
  const kept = order.filter((member) => left.delete(member));
  return [...kept, ...left];
}
