// A persistent sequence: an immutable value with O(log n) edits that share all but a path.
//
// A weight-balanced tree whose every edit is made of one operation, join(left, value, right), which
// makes a balanced tree of two balanced ones. Balance depends on sizes only, so it needs neither
// randomness nor parent links, and nodes of one version serve any number of other versions.
//
// With weight(t) = size(t) + 1, siblings differ at most by the factor `balance`, 3. Joining by
// single and double rotations keeps that for factors between 1 + √2 and 4.5 (Blelloch, Ferizovic,
// Sun: "Just Join for Parallel Ordered Sets", 2016). The depth is at most 2.41 log2(n + 1); hence
// recursion, also of destruction, is shallow.
//
// A version may be copied, read and dropped by any number of threads at once (the nodes' counts are
// atomic); assigning to one object needs the caller's care, as with any value.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace accrete {

// Summary of nothing, for sequences that need no prefix sums.
struct NoMeasure {
  template <class T>
  static NoMeasure of(const T&) {
    return {};
  }
  friend NoMeasure operator+(NoMeasure, NoMeasure) { return {}; }
};

// `Measure`: a monoid (default constructor is the neutral element, operator+ combines) with
// `static Measure of(const T&)`, kept for every subtree.
template <class T, class Measure = NoMeasure>
class PersistentSequence {
 public:
  PersistentSequence() = default;

  // O(n).
  static PersistentSequence from_vector(std::vector<T> values) {
    return PersistentSequence(build(values, 0, values.size()));
  }

  std::size_t size() const { return size_of(root_.get()); }
  bool empty() const { return !root_; }

  // The reference is valid while this version (or a copy of it) lives. REQUIRES: index < size().
  const T& at(std::size_t index) const {
    const Node* node = root_.get();
    for (;;) {
      const std::size_t left = size_of(node->left.get());
      if (index == left) return node->value;
      if (index < left) {
        node = node->left.get();
      } else {
        index -= left + 1;
        node = node->right.get();
      }
    }
  }
  // REQUIRES: !empty().
  const T& front() const { return at(0); }
  const T& back() const { return at(size() - 1); }

  // REQUIRES: index <= size().
  PersistentSequence insert(std::size_t index, T value) const {
    return PersistentSequence(inserted(root_, index, value));
  }
  PersistentSequence push_back(T value) const {
    return PersistentSequence(inserted(root_, size(), value));
  }
  // REQUIRES: index < size().
  PersistentSequence replace(std::size_t index, T value) const {
    return PersistentSequence(replaced(root_, index, value));
  }
  PersistentSequence erase(std::size_t index) const { return erase(index, index + 1); }
  // Drops [begin, end). REQUIRES: begin <= end <= size().
  PersistentSequence erase(std::size_t begin, std::size_t end) const {
    if (begin == end) return *this;
    return PersistentSequence(concat(first_of(root_, begin), rest_of(root_, end)));
  }

  // First index whose element does not satisfy `satisfied`. REQUIRES: all that satisfy come first.
  template <class Predicate>
  std::size_t partition_point(const Predicate& satisfied) const {
    std::size_t before = 0;
    const Node* node = root_.get();
    while (node != nullptr) {
      if (satisfied(node->value)) {
        before += size_of(node->left.get()) + 1;
        node = node->right.get();
      } else {
        node = node->left.get();
      }
    }
    return before;
  }

  Measure total() const { return total_of(root_.get()); }

  // Of the elements [0, index). REQUIRES: index <= size().
  Measure prefix(std::size_t index) const {
    Measure sum{};
    const Node* node = root_.get();
    while (node != nullptr) {
      const std::size_t left = size_of(node->left.get());
      if (index <= left) {
        node = node->left.get();
      } else {
        sum = sum + total_of(node->left.get()) + Measure::of(node->value);
        index -= left + 1;
        node = node->right.get();
      }
    }
    return sum;
  }

  // First index for which the measure of the elements [0, index] satisfies `reached`; size() when
  // none does. REQUIRES: once satisfied, it stays so for longer prefixes.
  template <class Predicate>
  std::size_t find(const Predicate& reached) const {
    Measure sum{};
    std::size_t before = 0;
    const Node* node = root_.get();
    while (node != nullptr) {
      const Measure with_left = sum + total_of(node->left.get());
      if (reached(with_left)) {
        node = node->left.get();
        continue;
      }
      const Measure with_value = with_left + Measure::of(node->value);
      before += size_of(node->left.get());
      if (reached(with_value)) return before;
      sum = with_value;
      before += 1;
      node = node->right.get();
    }
    return before;
  }

  // Calls visit(const T&) for the elements [begin, end) in order. REQUIRES: end <= size().
  template <class Visit>
  void for_range(std::size_t begin, std::size_t end, const Visit& visit) const {
    visit_range(root_.get(), begin, end, visit);
  }

  // Calls visit(index, const T&) in order for the elements whose measure, and that of every subtree
  // they lie in, satisfies `may_hold`: a search pruned by what subtrees are known to hold.
  template <class Predicate, class Visit>
  void for_where(const Predicate& may_hold, const Visit& visit) const {
    visit_where(root_.get(), 0, may_hold, visit);
  }

  // True for copies of one version; O(1). Equal contents may have different roots.
  bool same_root(const PersistentSequence& other) const { return root_.get() == other.root_.get(); }

  // Nodes on the longest path; for tests.
  std::size_t depth() const { return depth_of(root_.get()); }

 private:
  static constexpr std::size_t balance = 3;

  struct Node;

  // A counted reference to an immutable node.
  class Link {
   public:
    Link() = default;
    explicit Link(const Node* fresh) : node_(fresh) {}
    Link(const Link& other) : node_(other.node_) {
      if (node_ != nullptr) node_->references.fetch_add(1, std::memory_order_relaxed);
    }
    Link(Link&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
    Link& operator=(Link other) noexcept {
      std::swap(node_, other.node_);
      return *this;
    }
    ~Link() {
      if (node_ != nullptr && node_->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
        delete node_;
    }

    const Node* get() const { return node_; }
    const Node* operator->() const { return node_; }
    explicit operator bool() const { return node_ != nullptr; }

   private:
    const Node* node_ = nullptr;
  };

  struct Node {
    Node(Link l, const T& v, Link r)
        : size(size_of(l.get()) + 1 + size_of(r.get())),
          left(std::move(l)),
          right(std::move(r)),
          total(total_of(left.get()) + Measure::of(v) + total_of(right.get())),
          value(v) {}

    mutable std::atomic<std::uint64_t> references{1};
    std::size_t size;
    Link left;
    Link right;
    [[no_unique_address]] Measure total;
    T value;
  };

  explicit PersistentSequence(Link root) : root_(std::move(root)) {}

  static std::size_t size_of(const Node* node) { return node == nullptr ? 0 : node->size; }
  static std::size_t weight_of(const Node* node) { return size_of(node) + 1; }
  static Measure total_of(const Node* node) { return node == nullptr ? Measure{} : node->total; }
  static std::size_t depth_of(const Node* node) {
    if (node == nullptr) return 0;
    const std::size_t left = depth_of(node->left.get());
    const std::size_t right = depth_of(node->right.get());
    return 1 + (left > right ? left : right);
  }

  static Link make(Link left, const T& value, Link right) {
    return Link(new Node(std::move(left), value, std::move(right)));
  }
  static bool alike(std::size_t a, std::size_t b) { return a <= balance * b && b <= balance * a; }

  static Link build(const std::vector<T>& values, std::size_t begin, std::size_t end) {
    if (begin == end) return Link();
    const std::size_t middle = begin + (end - begin) / 2;
    return make(build(values, begin, middle), values[middle], build(values, middle + 1, end));
  }

  static Link join(const Link& left, const T& value, const Link& right) {
    const std::size_t left_weight = weight_of(left.get());
    const std::size_t right_weight = weight_of(right.get());
    if (left_weight > balance * right_weight)
      return lean_right(left->left, left->value, join(left->right, value, right));
    if (right_weight > balance * left_weight)
      return lean_left(join(left, value, right->left), right->value, right->right);
    return make(left, value, right);
  }
  // make(), rotating to the left when `right` has become too heavy.
  static Link lean_right(const Link& left, const T& value, const Link& right) {
    const std::size_t weight = weight_of(left.get());
    if (alike(weight, weight_of(right.get()))) return make(left, value, right);
    const Link& inner = right->left;
    const Link& outer = right->right;
    if (alike(weight, weight_of(inner.get())) &&
        alike(weight + weight_of(inner.get()), weight_of(outer.get())))
      return make(make(left, value, inner), right->value, outer);
    return make(make(left, value, inner->left), inner->value,
                make(inner->right, right->value, outer));
  }
  static Link lean_left(const Link& left, const T& value, const Link& right) {
    const std::size_t weight = weight_of(right.get());
    if (alike(weight, weight_of(left.get()))) return make(left, value, right);
    const Link& inner = left->right;
    const Link& outer = left->left;
    if (alike(weight, weight_of(inner.get())) &&
        alike(weight + weight_of(inner.get()), weight_of(outer.get())))
      return make(outer, left->value, make(inner, value, right));
    return make(make(outer, left->value, inner->left), inner->value,
                make(inner->right, value, right));
  }

  static Link concat(const Link& left, const Link& right) {
    if (!left) return right;
    if (!right) return left;
    const Node* last = left.get();
    while (last->right) last = last->right.get();
    return join(first_of(left, left->size - 1), last->value, right);
  }
  static Link inserted(const Link& tree, std::size_t index, const T& value) {
    if (!tree) return make(Link(), value, Link());
    const std::size_t left = size_of(tree->left.get());
    if (index <= left) return join(inserted(tree->left, index, value), tree->value, tree->right);
    return join(tree->left, tree->value, inserted(tree->right, index - left - 1, value));
  }
  static Link replaced(const Link& tree, std::size_t index, const T& value) {
    const std::size_t left = size_of(tree->left.get());
    if (index == left) return make(tree->left, value, tree->right);
    if (index < left) return make(replaced(tree->left, index, value), tree->value, tree->right);
    return make(tree->left, tree->value, replaced(tree->right, index - left - 1, value));
  }
  // The first `count` elements.
  static Link first_of(const Link& tree, std::size_t count) {
    if (!tree || count == 0) return Link();
    if (count == tree->size) return tree;
    const std::size_t left = size_of(tree->left.get());
    if (count <= left) return first_of(tree->left, count);
    return join(tree->left, tree->value, first_of(tree->right, count - left - 1));
  }
  // What follows them.
  static Link rest_of(const Link& tree, std::size_t count) {
    if (!tree || count == tree->size) return Link();
    if (count == 0) return tree;
    const std::size_t left = size_of(tree->left.get());
    if (count > left) return rest_of(tree->right, count - left - 1);
    return join(rest_of(tree->left, count), tree->value, tree->right);
  }

  template <class Visit>
  static void visit_range(const Node* node, std::size_t begin, std::size_t end,
                          const Visit& visit) {
    while (node != nullptr && begin < end) {
      const std::size_t left = size_of(node->left.get());
      if (begin < left) visit_range(node->left.get(), begin, end < left ? end : left, visit);
      if (begin <= left && left < end) visit(node->value);
      begin = begin > left ? begin - left - 1 : 0;
      end = end > left ? end - left - 1 : 0;
      node = node->right.get();
    }
  }

  template <class Predicate, class Visit>
  static void visit_where(const Node* node, std::size_t first, const Predicate& may_hold,
                          const Visit& visit) {
    while (node != nullptr && may_hold(node->total)) {
      visit_where(node->left.get(), first, may_hold, visit);
      const std::size_t index = first + size_of(node->left.get());
      if (may_hold(Measure::of(node->value))) visit(index, node->value);
      first = index + 1;
      node = node->right.get();
    }
  }

  Link root_;
};

}  // namespace accrete
