//! What plug-ins remember while one pod is scheduled.

use std::any::{Any, TypeId};
use std::fmt;

/// What plug-ins remember from one extension point to the next, within one attempt to schedule one pod. Each value is found by its
/// type, so a plug-in keeps its own in a type of its own.
///
/// ```
/// # use orlop_core::scheduling::CycleState;
/// #[derive(Clone)]
/// struct Wanted(i64);
/// let mut state = CycleState::default();
/// state.put(Wanted(3));
/// assert_eq!(state.get::<Wanted>().map(|wanted| wanted.0), Some(3));
/// ```
#[derive(Default)]
pub struct CycleState {
    values: Vec<(TypeId, Box<dyn Value>)>,
}

/// A value that can be copied for a what-if.
trait Value: Any + Send + Sync {
    fn copy(&self) -> Box<dyn Value>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any + Send + Sync + Clone> Value for T {
    fn copy(&self) -> Box<dyn Value> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl CycleState {
    /// Keeps a value; one of the same type is replaced.
    pub fn put<T: Any + Send + Sync + Clone>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        match self.values.iter_mut().find(|(known, _)| *known == id) {
            Some((_, kept)) => *kept = Box::new(value),
            None => self.values.push((id, Box::new(value))),
        }
    }

    /// The value of a type, if one is kept.
    #[must_use]
    pub fn get<T: Any + Send + Sync + Clone>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        let (_, value) = self.values.iter().find(|(known, _)| *known == id)?;
        (**value).as_any().downcast_ref()
    }

    /// The value of a type, to change it.
    pub fn get_mut<T: Any + Send + Sync + Clone>(&mut self) -> Option<&mut T> {
        let id = TypeId::of::<T>();
        let (_, value) = self.values.iter_mut().find(|(known, _)| *known == id)?;
        (**value).as_any_mut().downcast_mut()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
    }
}

impl Clone for CycleState {
    /// A copy for a what-if: changes to it are not seen in the first.
    fn clone(&self) -> Self {
        Self {
            values: self
                .values
                .iter()
                .map(|(id, value)| (*id, (**value).copy()))
                .collect(),
        }
    }
}

impl fmt::Debug for CycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CycleState({} values)", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_by_type_and_copied() {
        let mut state = CycleState::default();
        state.put(1i32);
        state.put("a");
        state.put(2i32);
        let copy = state.clone();
        *state.get_mut::<i32>().unwrap() += 1;
        assert_eq!(
            (state.get::<i32>(), copy.get::<i32>(), copy.get::<&str>()),
            (Some(&3), Some(&2), Some(&"a"))
        );
        assert_eq!(state.get::<u8>(), None);
        state.clear();
        assert_eq!(state.get::<i32>(), None);
    }
}
